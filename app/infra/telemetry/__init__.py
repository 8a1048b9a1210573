"""What the process tells about itself: logs, metrics, and the ids that join them."""
