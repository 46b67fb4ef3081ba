# cython: language_level=3
"""Kernels with state, mostly over bytes and str: check the argument, call the header.

The GIL stays held: it guards the state, and pieces are small.
"""

from libc.stdint cimport int32_t, uint64_t
from libcpp cimport bool
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

import numpy as np

from sprat.kernels import reference
from sprat.kernels.reference.checks import check_array, check_int
from sprat.kernels.reference.ngram import LONGEST, MOST_TOKENS, check_room
from sprat.kernels.reference.stop import check_stop


cdef extern from "sprat/ngram.hpp" namespace "sprat" nogil:
    cdef cppclass CppNgramIndex "sprat::NgramIndex":
        CppNgramIndex()
        CppNgramIndex(size_t min_n, size_t max_n, uint64_t seed) except +
        size_t size()
        const int32_t* tokens()
        void append(const int32_t* tokens, size_t count) except +
        pair[size_t, size_t] draft(size_t max_tokens)


cdef extern from "sprat/stop.hpp" namespace "sprat" nogil:
    cdef cppclass CppStopMatcher "sprat::StopMatcher":
        CppStopMatcher()
        CppStopMatcher(vector[string] stops) except +
        void feed(string_view piece, string& text) except +
        void flush(string& text) except +
        bool stopped()
        size_t matched()


cdef extern from "sprat/utf8.hpp" namespace "sprat" nogil:
    cdef cppclass CppUtf8Stream "sprat::Utf8Stream":
        void feed(string_view piece, string& text) except +
        void flush(string& text) except +


# The docstring of an extension type cannot be set, that of a plain subclass can.
cdef class _NgramIndex:
    cdef CppNgramIndex _index

    def __cinit__(self, min_n, max_n, seed=0):
        check_int("min_n", min_n, 1, LONGEST)
        check_int("max_n", max_n, min_n, LONGEST)
        check_int("seed", seed, 0, 2**64 - 1)
        self._index = CppNgramIndex(min_n, max_n, seed)

    def __len__(self):
        return self._index.size()

    def append(self, tokens):
        cdef const int32_t[::1] view
        check_array("tokens", tokens, np.int32, 1)
        check_room(self._index.size(), tokens)
        view = tokens
        if view.shape[0] > 0:
            self._index.append(&view[0], view.shape[0])

    def draft(self, max_tokens):
        cdef pair[size_t, size_t] found
        cdef int32_t[::1] view
        cdef size_t i
        check_int("max_tokens", max_tokens, 1, MOST_TOKENS)
        found = self._index.draft(max_tokens)
        drafted = np.empty(found.second - found.first, dtype=np.int32)
        view = drafted
        for i in range(found.second - found.first):
            view[i] = self._index.tokens()[found.first + i]
        return drafted


class NgramIndex(_NgramIndex):
    __doc__ = reference.NgramIndex.__doc__
    __slots__ = ()


_NgramIndex.append.__doc__ = reference.NgramIndex.append.__doc__
_NgramIndex.draft.__doc__ = reference.NgramIndex.draft.__doc__


cdef class _StopMatcher:
    cdef CppStopMatcher _matcher
    cdef tuple _stop

    def __cinit__(self, stop):
        cdef vector[string] stops
        self._stop = check_stop(stop)
        stops.reserve(len(self._stop))
        for text in self._stop:
            stops.push_back((<str>text).encode("utf-8", "surrogatepass"))
        self._matcher = CppStopMatcher(stops)

    @property
    def stopped(self):
        return self._matcher.stopped()

    @property
    def matched(self):
        return self._stop[self._matcher.matched()] if self._matcher.stopped() else None

    def feed(self, text):
        cdef string shown
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, got {type(text).__name__}")
        data = (<str>text).encode("utf-8", "surrogatepass")
        self._matcher.feed(string_view(<const char*>data, len(<bytes>data)), shown)
        return shown.decode("utf-8", "surrogatepass")

    def flush(self):
        cdef string held
        self._matcher.flush(held)
        return held.decode("utf-8", "surrogatepass")


class StopMatcher(_StopMatcher):
    __doc__ = reference.StopMatcher.__doc__
    __slots__ = ()


_StopMatcher.feed.__doc__ = reference.StopMatcher.feed.__doc__
_StopMatcher.flush.__doc__ = reference.StopMatcher.flush.__doc__


cdef class _Utf8Stream:
    cdef CppUtf8Stream _stream

    def feed(self, data):
        cdef string text
        if not isinstance(data, bytes):
            raise TypeError(f"data: expected bytes, got {type(data).__name__}")
        self._stream.feed(string_view(<const char*>data, len(<bytes>data)), text)
        return text.decode("utf-8")

    def flush(self):
        cdef string text
        self._stream.flush(text)
        return text.decode("utf-8")


class Utf8Stream(_Utf8Stream):
    __doc__ = reference.Utf8Stream.__doc__
    __slots__ = ()


_Utf8Stream.feed.__doc__ = reference.Utf8Stream.feed.__doc__
_Utf8Stream.flush.__doc__ = reference.Utf8Stream.flush.__doc__
