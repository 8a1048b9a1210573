"""The audit log: ``service`` buffers, writes and reads its entries."""
