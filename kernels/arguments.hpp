// Checks of arguments for pybind11 bindings; twin of sprat.kernels.reference.checks.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

namespace sprat {

namespace py = pybind11;

inline std::string text(const py::handle& object) { return py::str(object).cast<std::string>(); }

inline std::string type_name(const py::handle& object) {
  return text(py::type::handle_of(object).attr("__name__"));
}

// An aligned, C-contiguous array of T with this number of dimensions, or TypeError or ValueError.
template <typename T>
py::array checked_array(const std::string& name, const py::object& object, py::ssize_t ndim) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(name + ": expected a numpy array, got " + type_name(object));
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  const auto expected = py::dtype::of<T>();
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

// An int in [lowest, highest], or TypeError or ValueError; bool is none.
inline long long checked_int(const std::string& name, const py::object& object, long long lowest,
                             long long highest) {
  if (!py::isinstance<py::int_>(object) || py::isinstance<py::bool_>(object)) {
    throw py::type_error(name + ": expected int, got " + type_name(object));
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
  if (overflow != 0 || value < lowest || value > highest) {
    throw py::value_error(name + ": expected an int in [" + std::to_string(lowest) + ", " +
                          std::to_string(highest) + "], got " + text(object));
  }
  return value;
}

// The docstring of a function: its reference twin's, below the line by which CPython tells
// inspect.signature what a built-in function takes.
inline std::string documented(const std::string& name, const std::string& signature) {
  const py::module_ reference = py::module_::import("sprat.kernels.reference");
  return name + signature + "\n--\n\n" +
         reference.attr(name.c_str()).attr("__doc__").cast<std::string>();
}

}  // namespace sprat
