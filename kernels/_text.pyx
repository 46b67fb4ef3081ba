# cython: language_level=3
"""Kernels over bytes and str: check the argument, call the header."""

from libcpp.string cimport string
from libcpp.string_view cimport string_view

from sprat.kernels import reference


cdef extern from "sprat/utf8.hpp" namespace "sprat" nogil:
    cdef cppclass CppUtf8Stream "sprat::Utf8Stream":
        void feed(string_view piece, string& text) except +
        void flush(string& text) except +


# The GIL stays held: it guards the state, and pieces are small.
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


# The docstring of an extension type cannot be set, that of a plain subclass can.
class Utf8Stream(_Utf8Stream):
    __doc__ = reference.Utf8Stream.__doc__
    __slots__ = ()


_Utf8Stream.feed.__doc__ = reference.Utf8Stream.feed.__doc__
_Utf8Stream.flush.__doc__ = reference.Utf8Stream.flush.__doc__
