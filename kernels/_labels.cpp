// Kernels over label structures: checks the arguments, releases the GIL, calls the headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "sprat/trie.hpp"
#include "sprat/viterbi.hpp"

namespace py = pybind11;
using sprat::checked_array;
using sprat::checked_choice;
using sprat::checked_lengths;
using sprat::copied;
using sprat::Fault;
using sprat::text;

namespace {

// Children of each node, or ValueError where this is no trie.
std::vector<std::int32_t> checked_trie(const std::vector<std::int32_t>& parents,
                                       const std::vector<std::int32_t>& tokens,
                                       py::ssize_t vocabulary) {
  const auto refuse = [](const char* name, std::size_t node, const std::string& expected,
                         std::int32_t got) {
    throw py::value_error(std::string(name) + "[" + std::to_string(node) + "]: expected " +
                          expected + ", got " + std::to_string(got));
  };
  if (parents[0] != -1) {
    refuse("parents_n", 0, "-1 for the root", parents[0]);
  }
  if (tokens[0] != -1) {
    refuse("tokens_n", 0, "-1 for the root", tokens[0]);
  }
  std::vector<std::int32_t> children(parents.size());
  std::set<std::pair<std::int32_t, std::int32_t>> seen;
  for (std::size_t node = 1; node < parents.size(); ++node) {
    if (parents[node] < 0 || static_cast<std::size_t>(parents[node]) >= node) {
      refuse("parents_n", node, "a node in [0, " + std::to_string(node) + ")", parents[node]);
    }
    if (tokens[node] < 0 || tokens[node] >= vocabulary) {
      refuse("tokens_n", node, "a value in [0, " + std::to_string(vocabulary) + ")", tokens[node]);
    }
    if (!seen.emplace(parents[node], tokens[node]).second) {
      refuse("tokens_n", node, "another token than that of a sibling", tokens[node]);
    }
    ++children[static_cast<std::size_t>(parents[node])];
  }
  return children;
}

py::array_t<float> score_trie(const py::object& logits_rv, const py::object& parents_n,
                              const py::object& tokens_n, const py::object& rows_n,
                              const py::object& mode_object) {
  const py::array logits = checked_array<float>("logits_rv", logits_rv, 2);
  const auto parents = copied<std::int32_t>(checked_array<std::int32_t>("parents_n", parents_n, 1));
  const auto tokens = copied<std::int32_t>(checked_array<std::int32_t>("tokens_n", tokens_n, 1));
  const auto rows = copied<std::int32_t>(checked_array<std::int32_t>("rows_n", rows_n, 1));
  const auto mode =
      static_cast<sprat::TrieMode>(checked_choice("mode", mode_object, {"constrained", "full"}));
  if (parents.empty()) {
    throw py::value_error("parents_n: expected at least 1 node, got 0");
  }
  for (const auto& [name, size] : {std::pair("tokens_n", tokens.size()), {"rows_n", rows.size()}}) {
    if (size != parents.size()) {
      throw py::value_error(std::string(name) + ": expected " + std::to_string(parents.size()) +
                            " values, one for each of parents_n, got " + std::to_string(size));
    }
  }
  const auto children = checked_trie(parents, tokens, logits.shape(1));
  const std::int32_t least = mode == sprat::TrieMode::constrained ? 2 : 1;
  for (std::size_t node = 0; node < rows.size(); ++node) {
    const std::int32_t low = children[node] >= least ? 0 : -1;
    if (rows[node] < low || rows[node] >= logits.shape(0)) {
      throw py::value_error("rows_n[" + std::to_string(node) + "]: expected a row in [" +
                            std::to_string(low) + ", " + std::to_string(logits.shape(0)) +
                            "), got " + std::to_string(rows[node]));
    }
  }
  py::array_t<float> scores(static_cast<py::ssize_t>(parents.size()));
  const auto* source = static_cast<const float*>(logits.data());
  const auto width = static_cast<std::size_t>(logits.shape(1));
  float* target = scores.mutable_data();
  sprat::TrieFault found;
  {
    const py::gil_scoped_release nogil;
    found = sprat::score_trie(source, width, parents.data(), tokens.data(), rows.data(),
                              parents.size(), mode, target);
  }
  if (found.fault != Fault::none) {
    throw py::value_error("logits_rv[" + std::to_string(found.row) + "]: expected " +
                          (found.fault == Fault::nan        ? "numbers below infinity, got nan"
                           : found.fault == Fault::infinite ? "numbers below infinity, got inf"
                                                            : "an allowed token of finite logit, "
                                                              "got none"));
  }
  return scores;
}

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
  const auto* transitions = static_cast<const float*>(transitions_array.data());
  const auto* start = static_cast<const float*>(start_array.data());
  const auto* end = static_cast<const float*>(end_array.data());
  py::array_t<std::int32_t> path({rows, tokens});
  py::array_t<float> scores(rows);
  const auto* source = static_cast<const float*>(emissions.data());
  std::int32_t* chosen = path.mutable_data();
  float* reached = scores.mutable_data();
  {
    const py::gil_scoped_release nogil;
    sprat::viterbi(source, lengths.data(), transitions, start, end, lengths.size(),
                   static_cast<std::size_t>(tokens), static_cast<std::size_t>(tags), chosen,
                   reached);
  }
  return py::make_tuple(path, scores);
}

}  // namespace

PYBIND11_MODULE(_labels, module) {
  module.doc() = "Kernels over label structures; documented in sprat.kernels.reference.";
  py::options options;
  options.disable_function_signatures();
  module.def(
      "score_trie", &score_trie, py::arg("logits_rv"), py::arg("parents_n"), py::arg("tokens_n"),
      py::arg("rows_n"), py::arg("mode"),
      sprat::documented("score_trie", "(logits_rv, parents_n, tokens_n, rows_n, mode)").c_str());
  const std::string taken = "(emissions_btk, lengths_b, transitions_kk, start_k, end_k)";
  module.def("viterbi", &viterbi, py::arg("emissions_btk"), py::arg("lengths_b"),
             py::arg("transitions_kk"), py::arg("start_k"), py::arg("end_k"),
             sprat::documented("viterbi", taken).c_str());
}
