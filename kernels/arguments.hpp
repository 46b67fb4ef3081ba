// Checks of arguments for pybind11 bindings; twin of sprat.kernels.reference.checks.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sprat {

namespace py = pybind11;

inline std::string text(const py::handle& object) { return py::str(object).cast<std::string>(); }

inline std::string type_name(const py::handle& object) {
  return text(py::type::handle_of(object).attr("__name__"));
}

// An aligned, C-contiguous array with this dtype and number of dimensions, or TypeError or
// ValueError.
inline py::array checked_array(const std::string& name, const py::object& object,
                               const py::dtype& expected, py::ssize_t ndim) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(name + ": expected a numpy array, got " + type_name(object));
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  if (!array.dtype().equal(expected)) {
    throw py::type_error(name + ": expected dtype " + text(expected) + ", got " +
                         text(array.dtype()));
  }
  if (array.ndim() != ndim) {
    throw py::value_error(name + ": expected ndim " + std::to_string(ndim) + ", got " +
                          std::to_string(array.ndim()));
  }
  constexpr int required = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & required) != required) {
    throw py::value_error(name + ": expected an aligned, C-contiguous array, got strides " +
                          text(array.attr("strides")));
  }
  return array;
}

template <typename T>
py::array checked_array(const std::string& name, const py::object& object, py::ssize_t ndim) {
  return checked_array(name, object, py::dtype::of<T>(), ndim);
}

inline bool checked_bool(const std::string& name, const py::object& value) {
  if (!py::isinstance<py::bool_>(value)) {
    throw py::type_error(name + ": expected bool, got " + type_name(value));
  }
  return value.is(py::bool_(true));
}

// The index of one of these strings, or TypeError or ValueError.
inline std::size_t checked_choice(const std::string& name, const py::object& value,
                                  const std::vector<const char*>& choices) {
  if (!py::isinstance<py::str>(value)) {
    throw py::type_error(name + ": expected str, got " + type_name(value));
  }
  std::string expected;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (value.equal(py::str(choices[i]))) {
      return i;
    }
    expected += (i == 0                    ? "'"
                 : i + 1 == choices.size() ? " or '"
                                           : ", '") +
                std::string(choices[i]) + "'";
  }
  throw py::value_error(name + ": expected " + expected + ", got " + text(py::repr(value)));
}

inline long long checked_int(const std::string& name, const py::object& value, long long low,
                             long long high) {
  if (!py::isinstance<py::int_>(value) || py::isinstance<py::bool_>(value)) {
    throw py::type_error(name + ": expected int, got " + type_name(value));
  }
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0 || number < low || number > high) {
    throw py::value_error(name + ": expected an int in [" + std::to_string(low) + ", " +
                          std::to_string(high) + "], got " + text(value));
  }
  return number;
}

// A finite double above 0, or TypeError or ValueError.
inline double checked_positive(const std::string& name, const py::object& value) {
  if (!py::isinstance<py::float_>(value)) {
    throw py::type_error(name + ": expected float, got " + type_name(value));
  }
  const double number = PyFloat_AS_DOUBLE(value.ptr());
  if (!(number > 0.0) || std::isinf(number)) {
    throw py::value_error(name + ": expected a finite float above 0, got " +
                          text(py::repr(py::float_(number))));
  }
  return number;
}

// A copy of an array's values: another thread may write to the array once the GIL is released.
template <typename T>
std::vector<T> copied(const py::array& array) {
  const auto* first = static_cast<const T*>(array.data());
  return std::vector<T>(first, first + array.size());
}

// ValueError unless every value is in [0, limit).
inline void check_ids(const std::string& name, const std::vector<std::int32_t>& ids,
                      py::ssize_t limit) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limit) {
      throw py::value_error(name + "[" + std::to_string(i) + "]: expected a value in [0, " +
                            std::to_string(limit) + "), got " + std::to_string(ids[i]));
    }
  }
}

// A copy of offsets that ascend from 0 to `total`, at least one, or TypeError or ValueError.
inline std::vector<std::int64_t> checked_offsets(const std::string& name, const py::object& object,
                                                 py::ssize_t total) {
  auto offsets = copied<std::int64_t>(checked_array<std::int64_t>(name, object, 1));
  const auto refuse = [&](std::size_t i, const std::string& expected) {
    throw py::value_error(name + "[" + std::to_string(i) + "]: expected " + expected + ", got " +
                          std::to_string(offsets[i]));
  };
  if (offsets.empty()) {
    throw py::value_error(name + ": expected at least 1 offset, got 0");
  }
  if (offsets[0] != 0) {
    refuse(0, "0");
  }
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1] || offsets[i] > total) {
      refuse(i,
             "a value in [" + std::to_string(offsets[i - 1]) + ", " + std::to_string(total) + "]");
    }
  }
  if (offsets.back() != total) {
    refuse(offsets.size() - 1, std::to_string(total));
  }
  return offsets;
}

// A copy of a length in [1, tokens] for each row of the array `of`, or ValueError.
inline std::vector<std::int32_t> checked_lengths(const std::string& name, const py::array& array,
                                                 const std::string& of, py::ssize_t rows,
                                                 py::ssize_t tokens) {
  if (array.shape(0) != rows) {
    throw py::value_error(name + ": expected " + std::to_string(rows) +
                          " lengths, one for each row of " + of + ", got " +
                          std::to_string(array.shape(0)));
  }
  auto lengths = copied<std::int32_t>(array);
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    if (lengths[b] < 1 || lengths[b] > tokens) {
      throw py::value_error(name + "[" + std::to_string(b) + "]: expected a length in [1, " +
                            std::to_string(tokens) + "], got " + std::to_string(lengths[b]));
    }
  }
  return lengths;
}

// The docstring of a function: its reference twin's, below the line by which CPython tells
// inspect.signature what a built-in function takes.
inline std::string documented(const std::string& name, const std::string& signature) {
  const py::module_ reference = py::module_::import("sprat.kernels.reference");
  return name + signature + "\n--\n\n" +
         reference.attr(name.c_str()).attr("__doc__").cast<std::string>();
}

}  // namespace sprat
