// Kernels over label structures: checks the arguments, releases the GIL, calls the headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "sprat/viterbi.hpp"

namespace py = pybind11;
using sprat::checked_array;
using sprat::checked_lengths;
using sprat::copied;
using sprat::text;

namespace {

py::tuple viterbi(const py::object& emissions_btk, const py::object& lengths_b,
                  const py::object& transitions_kk, const py::object& start_k,
                  const py::object& end_k) {
  const py::array emissions = checked_array<float>("emissions_btk", emissions_btk, 3);
  const py::array lengths_array = checked_array<std::int32_t>("lengths_b", lengths_b, 1);
  const py::array transitions_array = checked_array<float>("transitions_kk", transitions_kk, 2);
  const py::array start_array = checked_array<float>("start_k", start_k, 1);
  const py::array end_array = checked_array<float>("end_k", end_k, 1);
  const py::ssize_t rows = emissions.shape(0);
  const py::ssize_t tokens = emissions.shape(1);
  const py::ssize_t tags = emissions.shape(2);
  if (transitions_array.shape(0) != tags || transitions_array.shape(1) != tags) {
    throw py::value_error("transitions_kk: expected shape (" + std::to_string(tags) + ", " +
                          std::to_string(tags) +
                          "), a row and a column for each tag of emissions_btk, got " +
                          text(transitions_array.attr("shape")));
  }
  for (const auto& [name, array] : {std::pair("start_k", start_array), {"end_k", end_array}}) {
    if (array.shape(0) != tags) {
      throw py::value_error(std::string(name) + ": expected " + std::to_string(tags) +
                            " scores, one for each tag of emissions_btk, got " +
                            std::to_string(array.shape(0)));
    }
  }
  const auto lengths = checked_lengths("lengths_b", lengths_array, "emissions_btk", rows, tokens);
  // The way back has to find the scores of the way forward.
  const auto transitions = copied<float>(transitions_array);
  const auto start = copied<float>(start_array);
  const auto end = copied<float>(end_array);
  py::array_t<std::int32_t> path({rows, tokens});
  py::array_t<float> scores(rows);
  const auto* source = static_cast<const float*>(emissions.data());
  std::int32_t* chosen = path.mutable_data();
  float* reached = scores.mutable_data();
  {
    const py::gil_scoped_release nogil;
    sprat::viterbi(source, lengths.data(), transitions.data(), start.data(), end.data(),
                   lengths.size(), static_cast<std::size_t>(tokens), static_cast<std::size_t>(tags),
                   chosen, reached);
  }
  return py::make_tuple(path, scores);
}

}  // namespace

PYBIND11_MODULE(_labels, module) {
  module.doc() = "Kernels over label structures; documented in sprat.kernels.reference.";
  py::options options;
  options.disable_function_signatures();
  const std::string taken = "(emissions_btk, lengths_b, transitions_kk, start_k, end_k)";
  module.def("viterbi", &viterbi, py::arg("emissions_btk"), py::arg("lengths_b"),
             py::arg("transitions_kk"), py::arg("start_k"), py::arg("end_k"),
             sprat::documented("viterbi", taken).c_str());
}
