"""Tools: typed functions. Their schema comes from the annotations, their description from the docstring."""


def count_words(text: str) -> int:
    """Count the words of a text.

    Args:
        text: the text
    """
    return len(text.split())
