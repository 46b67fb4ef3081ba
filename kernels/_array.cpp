// Kernels over numpy buffers: checks the arguments, releases the GIL, calls the header.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "sprat/chunk.hpp"
#include "sprat/isa.hpp"
#include "sprat/pool.hpp"

namespace py = pybind11;
using sprat::checked_array;
using sprat::text;
using sprat::type_name;

namespace {

std::string pair_text(std::int32_t start, std::int32_t end) {
  return "[" + std::to_string(start) + ", " + std::to_string(end) + "]";
}

std::string span_name(std::size_t i) { return "spans[" + std::to_string(i) + "]"; }

void check_spans(const std::vector<std::int32_t>& spans, py::ssize_t size) {
  std::int32_t start_ahead = 0;
  std::int32_t end_ahead = 0;
  for (std::size_t i = 0; i < spans.size() / 2; ++i) {
    const std::int32_t start = spans[2 * i];
    const std::int32_t end = spans[2 * i + 1];
    if (start < 0 || end < start || end > size) {
      throw py::value_error(span_name(i) + ": expected 0 <= start <= end <= " +
                            std::to_string(size) + ", got " + pair_text(start, end));
    }
    if (start < start_ahead || end < end_ahead) {
      throw py::value_error(span_name(i) +
                            ": expected a start and an end not before those of the span ahead, "
                            "got " +
                            pair_text(start, end) + " after " + pair_text(start_ahead, end_ahead));
    }
    start_ahead = start;
    end_ahead = end;
  }
}

py::tuple chunk(const py::object& text, const py::object& spans, const py::object& max_tokens,
                const py::object& overlap_tokens) {
  if (!py::isinstance<py::str>(text)) {
    throw py::type_error("text: expected str, got " + type_name(text));
  }
  const py::array checked = checked_array<std::int32_t>("spans", spans, 2);
  if (checked.shape(1) != 2) {
    throw py::value_error("spans: expected 2 columns, got " + std::to_string(checked.shape(1)));
  }
  const long long most = sprat::checked_int("max_tokens", max_tokens, 1, 2147483647);
  const long long overlap = sprat::checked_int("overlap_tokens", overlap_tokens, 0, most - 1);
  // A copy: another thread may write to the array once the GIL is released.
  const auto* first = static_cast<const std::int32_t*>(checked.data());
  const std::vector<std::int32_t> copied(first, first + checked.size());
  const py::ssize_t size = PyUnicode_GET_LENGTH(text.ptr());
  check_spans(copied, size);

  std::vector<sprat::Window> windows;
  const int kind = PyUnicode_KIND(text.ptr());
  const void* characters = PyUnicode_DATA(text.ptr());
  {
    const py::gil_scoped_release nogil;
    const auto cut = [&](const auto* code_points) {
      windows = sprat::chunk(code_points, static_cast<std::size_t>(size), copied.data(),
                             copied.size() / 2, static_cast<std::size_t>(most),
                             static_cast<std::size_t>(overlap));
    };
    if (kind == PyUnicode_1BYTE_KIND) {
      cut(static_cast<const Py_UCS1*>(characters));
    } else if (kind == PyUnicode_2BYTE_KIND) {
      cut(static_cast<const Py_UCS2*>(characters));
    } else {
      cut(static_cast<const Py_UCS4*>(characters));
    }
  }
  const auto rows = static_cast<py::ssize_t>(windows.size());
  py::array_t<std::int64_t> tokens({rows, py::ssize_t{2}});
  py::array_t<std::int32_t> places({rows, py::ssize_t{2}});
  std::int64_t* token = tokens.mutable_data();
  std::int32_t* place = places.mutable_data();
  for (const sprat::Window& window : windows) {
    *token++ = window.first;
    *token++ = window.last;
    *place++ = copied[static_cast<std::size_t>(2 * window.first)];
    *place++ = copied[static_cast<std::size_t>(2 * window.last - 1)];
  }
  return py::make_tuple(tokens, places);
}

py::array_t<float> pool(const py::object& hidden_bth, const py::object& lengths_b,
                        const py::object& mode, const py::object& normalize) {
  const py::array hidden = checked_array<float>("hidden_bth", hidden_bth, 3);
  const py::array lengths = checked_array<std::int32_t>("lengths_b", lengths_b, 1);
  if (!py::isinstance<py::str>(mode)) {
    throw py::type_error("mode: expected str, got " + type_name(mode));
  }
  const bool mean = mode.equal(py::str("mean"));
  if (!mean && !mode.equal(py::str("cls"))) {
    throw py::value_error("mode: expected 'mean' or 'cls', got " + text(py::repr(mode)));
  }
  if (!py::isinstance<py::bool_>(normalize)) {
    throw py::type_error("normalize: expected bool, got " + type_name(normalize));
  }
  const py::ssize_t batch = hidden.shape(0);
  const py::ssize_t tokens = hidden.shape(1);
  const py::ssize_t width = hidden.shape(2);
  if (lengths.shape(0) != batch) {
    throw py::value_error("lengths_b: expected " + std::to_string(batch) +
                          " lengths, one for each row of hidden_bth, got " +
                          std::to_string(lengths.shape(0)));
  }
  // A copy: another thread may write to the array once the GIL is released.
  const auto* first = static_cast<const std::int32_t*>(lengths.data());
  const std::vector<std::int32_t> checked(first, first + batch);
  for (std::size_t b = 0; b < checked.size(); ++b) {
    if (checked[b] < 1 || checked[b] > tokens) {
      throw py::value_error("lengths_b[" + std::to_string(b) + "]: expected a length in [1, " +
                            std::to_string(tokens) + "], got " + std::to_string(checked[b]));
    }
  }
  py::array_t<float> pooled({batch, width});
  const auto* source = static_cast<const float*>(hidden.data());
  float* target = pooled.mutable_data();
  const auto pooling = mean ? sprat::Pooling::mean : sprat::Pooling::cls;
  const bool normalized = normalize.is(py::bool_(true));
  {
    const py::gil_scoped_release nogil;
    sprat::pool(source, checked.data(), static_cast<std::size_t>(batch),
                static_cast<std::size_t>(tokens), static_cast<std::size_t>(width), pooling,
                normalized, target);
  }
  return pooled;
}

}  // namespace

PYBIND11_MODULE(_array, module) {
  module.doc() = "Kernels over numpy buffers; documented in sprat.kernels.reference.";
  py::options options;
  options.disable_function_signatures();
  module.def("chunk", &chunk, py::arg("text"), py::arg("spans"), py::arg("max_tokens"),
             py::arg("overlap_tokens"),
             sprat::documented("chunk", "(text, spans, max_tokens, overlap_tokens)").c_str());
  module.def("pool", &pool, py::arg("hidden_bth"), py::arg("lengths_b"), py::arg("mode"),
             py::arg("normalize") = true,
             sprat::documented("pool", "(hidden_bth, lengths_b, mode, normalize=True)").c_str());
  module.attr("AVX2") = sprat::supports(sprat::Isa::avx2);
}
