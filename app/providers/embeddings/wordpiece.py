"""WordPiece tokenizer of BERT's uncased models (https://arxiv.org/abs/1609.08144), with the library ``tokenizers``."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

UNKNOWN, CLASS, SEPARATOR = "[UNK]", "[CLS]", "[SEP]"


def load_tokenizer(vocabulary: Path, max_pieces: int) -> Tokenizer:
    """Load a ``vocab.txt``. Texts are truncated to ``max_pieces``, delimiters included.

    The delimiters are not registered as special tokens: in a text they are brackets and letters.
    """
    tokenizer = Tokenizer(WordPiece.from_file(str(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    last, first = ((piece, tokenizer.token_to_id(piece)) for piece in (SEPARATOR, CLASS))
    tokenizer.post_processor = BertProcessing(last, first)
    tokenizer.enable_truncation(max_pieces)
    return tokenizer
