"""What is a text, and its words."""

import re

from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.media import MediaError

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def checked_text(raw: bytes | str, limits: LimitsConfig) -> str:
    """A text without white space around it.

    Raises:
        MediaError: not UTF-8, nothing but white space, or longer than the limit.
    """
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise MediaError("not UTF-8", f"byte 0x{byte:02x} at place {error.start} is not UTF-8") from None
    text = raw.strip()
    if not text:
        raise MediaError("empty text", "the text is empty or white space")
    if len(text) > limits.max_characters:
        raise MediaError(
            "text too long", f"{len(text):,} characters; limits.max_characters is {limits.max_characters:,}"
        )
    return text


def words_of(text: str) -> list[str]:
    """Lower-case words in any script: runs of letters, digits and combining marks, an apostrophe inside kept.

    Scripts without spaces come out as one word a run of letters: use a tokenising model for them.
    """
    return _WORD.findall(text.casefold())
