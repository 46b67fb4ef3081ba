// Kernels over numpy buffers: checks the arguments, releases the GIL, calls the header.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "sprat/isa.hpp"
#include "sprat/pool.hpp"

namespace py = pybind11;
using sprat::checked_array;
using sprat::text;
using sprat::type_name;

namespace {

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
  module.def("pool", &pool, py::arg("hidden_bth"), py::arg("lengths_b"), py::arg("mode"),
             py::arg("normalize") = true,
             sprat::documented("pool", "(hidden_bth, lengths_b, mode, normalize=True)").c_str());
  module.attr("AVX2") = sprat::supports(sprat::Isa::avx2);
}
