# cython: language_level=3
# distutils: define_macros=NPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION
"""WordPiece, alone and before an embedding bag: reads str objects where they lie, calls the
headers, fills numpy arrays."""

from collections.abc import Sequence

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cbool
from libcpp.algorithm cimport copy
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from sprat.kernels.reference import Embedded, Ragged, WordPieceSettings
from sprat.kernels.reference import StaticEmbedding as SpecifiedStatic
from sprat.kernels.reference import WordPiece as Specified
from sprat.kernels.reference.static import check_static

cnp.import_array()


cdef extern from *:
    """
    // Before Python 3.12 a str may not have its final form yet.
    static inline int sprat_make_ready(PyObject* text) {
    #if PY_VERSION_HEX < 0x030C0000
      return PyUnicode_READY(text);
    #else
      (void)text;
      return 0;
    #endif
    }
    """
    int sprat_make_ready(object text) except -1
    int PyUnicode_KIND(object text)
    const void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)


cdef extern from "<string>" namespace "std" nogil:
    cdef cppclass u32string:
        pass

cdef extern from "sprat/wordpiece.hpp" namespace "sprat" nogil:
    cdef struct TextView:
        const void* data
        size_t size
        int width

    cdef cppclass CppSettings "sprat::WordPieceSettings":
        cbool clean_text, handle_chinese_chars, strip_accents, lowercase
        size_t max_word_chars
        int32_t unknown
        vector[int32_t] before, after

    cdef struct CppToken "sprat::WordPieceToken":
        u32string text
        int32_t id

    cdef cppclass CppRows "sprat::WordPieceRows":
        vector[int32_t] ids, spans
        vector[int64_t] ends, dropped

    cdef cppclass CppOptions "sprat::WordPieceOptions":
        size_t max_tokens
        cbool count_dropped, parse_special

    cdef cppclass CppWordPiece "sprat::WordPiece":
        CppWordPiece(CppSettings, vector[CppToken], u32string, vector[CppToken]) except +

    u32string decoded(TextView text) except +
    size_t first_surrogate(TextView text)
    vector[CppRows] encode_batch(
        CppWordPiece wordpiece, vector[TextView] texts, CppOptions options, size_t threads
    ) except +

cdef extern from "sprat/static.hpp" namespace "sprat" nogil:
    cdef enum class TableType:
        int8
        float16
        float32

    cdef cppclass CppStatic "sprat::StaticEmbedding":
        CppStatic(
            CppWordPiece,
            const void*,
            TableType,
            size_t,
            vector[float],
            vector[int32_t],
            cbool,
        ) except +
        void encode(
            vector[TextView] texts,
            CppOptions options,
            float* vectors,
            int64_t* tokens,
            int64_t* dropped,
        ) except +


cdef size_t GIL_SIZE = 2048  # Texts longer than this together are encoded without the GIL.


cdef TextView view_of(text) except *:
    cdef TextView view
    sprat_make_ready(text)
    view.data = PyUnicode_DATA(text)
    view.size = PyUnicode_GET_LENGTH(text)
    view.width = PyUnicode_KIND(text)
    return view


cdef vector[CppToken] tokens_of(mapping) except *:
    cdef vector[CppToken] tokens
    cdef CppToken token
    for text, token_id in mapping.items():
        token.text = decoded(view_of(text))
        token.id = token_id
        tokens.push_back(token)
    return tokens


cdef tuple checked_texts(texts):
    if isinstance(texts, str) or not isinstance(texts, (list, tuple, Sequence)):
        raise TypeError(f"texts: expected a sequence of str, got {type(texts).__name__}")
    # A copy: another thread may write to the list once the GIL is released.
    return tuple(texts)


cdef size_t add_views(tuple texts, vector[TextView]& views) except *:
    """Check the texts and view them; the number of their code points."""
    cdef size_t total = 0, at, index
    cdef TextView view
    views.reserve(len(texts))
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}]: expected str, got {type(text).__name__}")
        view = view_of(text)
        if view.size >= <size_t>1 << 31:
            raise ValueError(f"texts[{index}]: expected less than 2**31 code points")
        total += view.size
        views.push_back(view)
    for index in range(views.size()):
        at = first_surrogate(views[index])
        if at != views[index].size:
            raise ValueError(
                f"texts[{index}]: half a surrogate pair at index {at}, which is not text"
            )
    return total


cdef check_int(name, value):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected int or None, got {type(value).__name__}")


cdef check_bool(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected bool, got {type(value).__name__}")


cdef object ragged(vector[CppRows]& parts):
    cdef cnp.npy_intp rows = 0, tokens = 0
    cdef size_t part, each
    for part in range(parts.size()):
        rows += parts[part].ends.size()
        tokens += parts[part].ids.size()
    cdef cnp.npy_intp[2] shape = [tokens, 2]
    cdef cnp.npy_intp edges = rows + 1
    cdef cnp.ndarray ids = cnp.PyArray_EMPTY(1, &tokens, cnp.NPY_INT32, 0)
    cdef cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &edges, cnp.NPY_INT64, 0)
    cdef cnp.ndarray spans = cnp.PyArray_EMPTY(2, shape, cnp.NPY_INT32, 0)
    cdef cnp.ndarray dropped = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INT64, 0)
    cdef int32_t* id_at = <int32_t*>cnp.PyArray_DATA(ids)
    cdef int32_t* span_at = <int32_t*>cnp.PyArray_DATA(spans)
    cdef int64_t* offset_at = <int64_t*>cnp.PyArray_DATA(offsets)
    cdef int64_t* dropped_at = <int64_t*>cnp.PyArray_DATA(dropped)
    cdef int64_t start = 0
    offset_at[0] = 0
    for part in range(parts.size()):
        for each in range(parts[part].ends.size()):
            offset_at += 1
            offset_at[0] = start + parts[part].ends[each]
        start = offset_at[0]
        id_at = copy(parts[part].ids.begin(), parts[part].ids.end(), id_at)
        span_at = copy(parts[part].spans.begin(), parts[part].spans.end(), span_at)
        dropped_at = copy(parts[part].dropped.begin(), parts[part].dropped.end(), dropped_at)
    return Ragged(ids, offsets, spans, dropped)


cdef CppWordPiece* made_of(settings) except NULL:
    cdef CppSettings made
    if not isinstance(settings, WordPieceSettings):
        raise TypeError(f"settings: expected WordPieceSettings, got {type(settings).__name__}")
    made.clean_text = settings.clean_text
    made.handle_chinese_chars = settings.handle_chinese_chars
    made.strip_accents = settings.strip_accents
    made.lowercase = settings.lowercase
    made.max_word_chars = settings.max_word_chars
    made.unknown = settings.unknown
    made.before = settings.before
    made.after = settings.after
    return new CppWordPiece(
        made,
        tokens_of(settings.vocabulary),
        decoded(view_of(settings.prefix)),
        tokens_of(settings.special),
    )


cdef set_max_tokens(CppOptions& options, max_tokens, size_t around):
    if max_tokens is not None:
        check_int("max_tokens", max_tokens)
        if max_tokens < around:
            raise ValueError(
                f"max_tokens: expected at least {around}, the number of special tokens,"
                f" got {max_tokens}"
            )
        options.max_tokens = min(max_tokens, 1 << 62)


cdef class _WordPiece:
    cdef unique_ptr[CppWordPiece] _wordpiece
    cdef size_t _around
    cdef dict _tokens

    def __cinit__(self, settings):
        self._wordpiece.reset(made_of(settings))
        self._around = len(settings.before) + len(settings.after)
        self._tokens = {token_id: token for token, token_id in settings.vocabulary.items()}

    def encode_batch(
        self, texts, max_tokens=None, threads=None, *, count_dropped=False, parse_special=False
    ):
        cdef tuple held = checked_texts(texts)
        cdef vector[TextView] views
        cdef size_t total = add_views(held, views)
        cdef CppOptions options
        cdef size_t workers = 1
        cdef vector[CppRows] parts
        set_max_tokens(options, max_tokens, self._around)
        if threads is not None:
            check_int("threads", threads)
            if not 1 <= threads <= 256:
                raise ValueError(f"threads: expected 1 to 256, got {threads}")
            workers = threads
        check_bool("count_dropped", count_dropped)
        check_bool("parse_special", parse_special)
        options.count_dropped = count_dropped
        options.parse_special = parse_special
        if total <= GIL_SIZE:
            parts = encode_batch(self._wordpiece.get()[0], views, options, workers)
        else:
            with nogil:
                parts = encode_batch(self._wordpiece.get()[0], views, options, workers)
        return ragged(parts)

    def tokens(self, ids):
        return tuple([self._tokens.get(token_id, "") for token_id in ids.tolist()])


cdef class _StaticEmbedding:
    cdef unique_ptr[CppStatic] _static
    cdef cnp.ndarray _table  # lies in memory for as long as it is read
    cdef size_t _around
    cdef cnp.npy_intp _width

    def __cinit__(self, settings, table_vh, weights_v=None, normalize=True, rows_v=None):
        cdef vector[float] weights
        cdef vector[int32_t] rows
        cdef TableType kind = TableType.int8
        cdef unique_ptr[CppWordPiece] wordpiece
        check_static(settings, table_vh, weights_v, normalize, rows_v)
        wordpiece.reset(made_of(settings))
        self._table = table_vh
        self._around = len(settings.before) + len(settings.after)
        self._width = table_vh.shape[1]
        if self._table.itemsize == 2:
            kind = TableType.float16
        elif self._table.itemsize == 4:
            kind = TableType.float32
        if weights_v is not None:
            weights = weights_v
        if rows_v is not None:
            rows = rows_v
        self._static.reset(
            new CppStatic(
                wordpiece.get()[0],
                cnp.PyArray_DATA(self._table),
                kind,
                self._width,
                weights,
                rows,
                normalize,
            )
        )

    def encode_batch(self, texts, max_tokens=None, *, count_dropped=False):
        cdef tuple held = checked_texts(texts)
        cdef vector[TextView] views
        cdef size_t total = add_views(held, views)
        cdef CppOptions options
        set_max_tokens(options, max_tokens, self._around)
        check_bool("count_dropped", count_dropped)
        options.count_dropped = count_dropped
        cdef cnp.npy_intp[2] shape = [len(held), self._width]
        cdef cnp.ndarray vectors = cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT32, 0)
        cdef cnp.ndarray tokens = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
        cdef cnp.ndarray dropped = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INT64, 0)
        cdef float* vector_at = <float*>cnp.PyArray_DATA(vectors)
        cdef int64_t* token_at = <int64_t*>cnp.PyArray_DATA(tokens)
        cdef int64_t* dropped_at = <int64_t*>cnp.PyArray_DATA(dropped)
        if total <= GIL_SIZE:
            self._static.get().encode(views, options, vector_at, token_at, dropped_at)
        else:
            with nogil:
                self._static.get().encode(views, options, vector_at, token_at, dropped_at)
        return Embedded(vectors, tokens, dropped)


# The docstring of an extension type cannot be set, that of a plain subclass can.
class WordPiece(_WordPiece):
    __doc__ = Specified.__doc__
    __slots__ = ()

    @classmethod
    def from_tokenizer_json(cls, path):
        return cls(WordPieceSettings.from_tokenizer_json(path))

    @classmethod
    def from_vocab(
        cls,
        path,
        *,
        lowercase=True,
        strip_accents=None,
        clean_text=True,
        handle_chinese_chars=True,
    ):
        return cls(
            WordPieceSettings.from_vocab(
                path,
                lowercase=lowercase,
                strip_accents=strip_accents,
                clean_text=clean_text,
                handle_chinese_chars=handle_chinese_chars,
            )
        )


_WordPiece.encode_batch.__doc__ = Specified.encode_batch.__doc__
_WordPiece.tokens.__doc__ = Specified.tokens.__doc__
WordPiece.from_tokenizer_json.__func__.__doc__ = Specified.from_tokenizer_json.__doc__
WordPiece.from_vocab.__func__.__doc__ = Specified.from_vocab.__doc__


class StaticEmbedding(_StaticEmbedding):
    __doc__ = SpecifiedStatic.__doc__
    __slots__ = ()


_StaticEmbedding.encode_batch.__doc__ = SpecifiedStatic.encode_batch.__doc__
