"""What a WordPiece tokenizer is made of, and the files that say so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 2**31


@dataclass(frozen=True)
class WordPieceSettings:
    """A vocabulary and what is done to text before it is looked up.

    Attributes
    ----------
    vocabulary : mapping of str to int
        Id of each token, in [0, 2**31).
    unknown : int
        Id of a word that cannot be put together from the vocabulary.
    prefix : str
        What the tokens that continue a word start with.
    max_word_chars : int
        Longer words are unknown. In code points after normalization.
    clean_text : bool
        Remove control characters and the like, turn white space into spaces.
    handle_chinese_chars : bool
        Make a word of each Chinese character.
    strip_accents : bool
        Decompose characters and remove their accents.
    lowercase : bool
        Turn characters into lower case.
    before, after : tuple of int
        Ids of the special tokens around each row.
    special : mapping of str to int
        Ids of the tokens that texts may hold where that is asked for.
    """

    vocabulary: Mapping[str, int] = field(repr=False)
    unknown: int
    prefix: str = "##"
    max_word_chars: int = 100
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool = True
    lowercase: bool = True
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owners: dict[int, str] = {}
        for token, token_id in self.vocabulary.items():
            _check_text("vocabulary", token)
            _check_id("vocabulary", token_id)
            if owners.setdefault(token_id, token) is not token:
                raise ValueError(
                    f"vocabulary: expected one token an id, got {owners[token_id]!r} and"
                    f" {token!r} for {token_id}"
                )
        for token, token_id in self.special.items():
            _check_text("special", token)
            if not token or self.vocabulary.get(token) != token_id:
                raise ValueError(
                    f"special[{token!r}]: expected a token of the vocabulary and its id,"
                    f" got {token_id!r}"
                )
        _check_id("unknown", self.unknown)
        _check_text("prefix", self.prefix)
        for name, ids in (("before", self.before), ("after", self.after)):
            for index, token_id in enumerate(ids):
                _check_id(f"{name}[{index}]", token_id)
        if type(self.max_word_chars) is not int or not 0 <= self.max_word_chars < LIMIT:
            raise ValueError(
                f"max_word_chars: expected an int in [0, {LIMIT}), got {self.max_word_chars!r}"
            )
        for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"):
            _flag(name, getattr(self, name))

    @classmethod
    def from_tokenizer_json(cls, path: str | os.PathLike[str]) -> WordPieceSettings:
        """Read the tokenizer.json of the ``tokenizers`` library.

        Truncation, padding and the decoder that the file asks for are ignored.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            The file is malformed, or asks for what is not implemented here: another normalizer
            than BertNormalizer, pre-tokenizer than BertPreTokenizer, model than WordPiece,
            post-processor than BertProcessing or a template of special tokens around the text;
            added tokens that are not special, not in the vocabulary, or matched in other ways
            than letter by letter.
        """
        document = _object("file", _parse(Path(path).read_bytes()))
        normalizer = _part(document, "normalizer", "BertNormalizer")
        _part(document, "pre_tokenizer", "BertPreTokenizer")
        model = _part(document, "model", "WordPiece")
        vocabulary = _object("model.vocab", model.get("vocab"))
        unknown = vocabulary.get(_text("model.unk_token", model.get("unk_token")))
        lowercase = _flag("normalizer.lowercase", normalizer.get("lowercase"))
        accents = normalizer.get("strip_accents")
        before, after = _around(document.get("post_processor"))
        return cls(
            vocabulary=vocabulary,
            unknown=_check_id("model.vocab[model.unk_token]", unknown),
            prefix=_text("model.continuing_subword_prefix", model.get("continuing_subword_prefix")),
            max_word_chars=model.get("max_input_chars_per_word", -1),
            clean_text=_flag("normalizer.clean_text", normalizer.get("clean_text")),
            handle_chinese_chars=_flag(
                "normalizer.handle_chinese_chars", normalizer.get("handle_chinese_chars")
            ),
            strip_accents=lowercase if accents is None else _flag("strip_accents", accents),
            lowercase=lowercase,
            before=before,
            after=after,
            special=_special(document.get("added_tokens", [])),
        )

    @classmethod
    def from_vocab(
        cls,
        path: str | os.PathLike[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
    ) -> WordPieceSettings:
        """Read a vocab.txt: one token a line, its id the number of the line, from 0 on.

        Rows get ``[CLS]`` in front and ``[SEP]`` behind.

        Parameters
        ----------
        path : str or path
            The file, in UTF-8. White space at the end of a line is ignored; of a token that
            stands in several lines, the last one counts.
        strip_accents : bool or None
            None, the default, does as `lowercase` says.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            The file is not UTF-8, or ``[UNK]``, ``[CLS]`` or ``[SEP]`` is missing.
        """
        # What Rust calls white space: no more than str.rstrip removes.
        white = (
            "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
            "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
        )
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
        if not lines[-1]:
            lines.pop()
        vocabulary = {line.rstrip(white): index for index, line in enumerate(lines)}
        for token in ("[UNK]", "[CLS]", "[SEP]"):
            if token not in vocabulary:
                raise ValueError(f"vocab: expected {token} in the vocabulary, got none")
        return cls(
            vocabulary=vocabulary,
            unknown=vocabulary["[UNK]"],
            clean_text=clean_text,
            handle_chinese_chars=handle_chinese_chars,
            strip_accents=lowercase if strip_accents is None else strip_accents,
            lowercase=lowercase,
            before=(vocabulary["[CLS]"],),
            after=(vocabulary["[SEP]"],),
            special={
                token: vocabulary[token]
                for token in ("[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]")
                if token in vocabulary
            },
        )


def _parse(content: bytes) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("file: expected JSON, got one that is nested too deep") from None
    except ValueError as error:  # both of its kinds
        raise ValueError(f"file: expected JSON ({error})") from None


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, got {type(value).__name__}")
    return value


def _part(document: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    part = document.get(name)
    found = part.get("type") if isinstance(part, dict) else part
    if not isinstance(part, dict) or found != kind:
        raise ValueError(f"{name}: expected {kind}, got {found}")
    return part


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string, got {value!r}")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")
    return value


def _check_text(name: str, value: object) -> None:
    text = _text(name, value)
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError(f"{name}: expected text, got half a surrogate pair in {text!r}")


def _check_id(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < LIMIT:
        raise ValueError(f"{name}: expected an id in [0, {LIMIT}), got {value!r}")
    return value


def _special(added: object) -> dict[str, int]:
    if not isinstance(added, list):
        raise ValueError(f"added_tokens: expected a list, got {type(added).__name__}")
    special: dict[str, int] = {}
    for index, item in enumerate(added):
        name = f"added_tokens[{index}]"
        token = _object(name, item)
        if token.get("special") is not True:
            raise ValueError(f"{name}: expected a special token, got {token.get('content')!r}")
        for switch in ("single_word", "lstrip", "rstrip", "normalized"):
            if token.get(switch) is not False:
                raise ValueError(f"{name}.{switch}: expected false, got {token.get(switch)!r}")
        special[_text(f"{name}.content", token.get("content"))] = _check_id(
            f"{name}.id", token.get("id")
        )
    return special


def _around(processor: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if processor is None:
        return (), ()
    document = _object("post_processor", processor)
    if document.get("type") == "BertProcessing":
        ends = []
        for name in ("cls", "sep"):
            pair = document.get(name)
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError(f"post_processor.{name}: expected a token and its id")
            ends.append(_check_id(f"post_processor.{name}[1]", pair[1]))
        return (ends[0],), (ends[1],)
    _part({"post_processor": document}, "post_processor", "TemplateProcessing")
    known = _object("post_processor.special_tokens", document.get("special_tokens"))
    template = document.get("single")
    if not isinstance(template, list):
        raise ValueError("post_processor.single: expected a list")
    around: list[list[int]] = [[]]
    for index, item in enumerate(template):
        name = f"post_processor.single[{index}]"
        piece = _object(name, item)
        if piece.keys() == {"Sequence"}:
            if _object(name, piece["Sequence"]).get("id") != "A":
                raise ValueError(f"{name}: expected sequence A")
            around.append([])
            continue
        if piece.keys() != {"SpecialToken"}:
            raise ValueError(f"{name}: expected a special token or a sequence")
        token = _text(name, _object(name, piece["SpecialToken"]).get("id"))
        ids = _object(name, known.get(token)).get("ids")
        if not isinstance(ids, list):
            raise ValueError(f"post_processor.special_tokens[{token!r}].ids: expected a list")
        around[-1] += [_check_id(name, each) for each in ids]
    if len(around) != 2:
        raise ValueError("post_processor.single: expected sequence A once")
    return tuple(around[0]), tuple(around[1])
