// Kernels over numpy buffers: checks the arguments, releases the GIL, calls the header.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "arguments.hpp"
#include "sprat/chunk.hpp"
#include "sprat/embedding.hpp"
#include "sprat/head.hpp"
#include "sprat/isa.hpp"
#include "sprat/pack.hpp"
#include "sprat/pool.hpp"

namespace py = pybind11;
using sprat::check_ids;
using sprat::checked_array;
using sprat::checked_bool;
using sprat::checked_choice;
using sprat::checked_int;
using sprat::checked_lengths;
using sprat::checked_offsets;
using sprat::checked_positive;
using sprat::copied;
using sprat::text;
using sprat::type_name;

namespace {

constexpr std::int32_t int32_max = std::numeric_limits<std::int32_t>::max();

// Uninitialized, of this shape.
template <typename T>
py::array_t<T> empty(std::size_t rows, std::size_t columns) {
  return py::array_t<T>({rows, columns});
}

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
  const auto edges = copied<std::int32_t>(checked);
  const py::ssize_t size = PyUnicode_GET_LENGTH(text.ptr());
  check_spans(edges, size);

  std::vector<sprat::Window> windows;
  const int kind = PyUnicode_KIND(text.ptr());
  const void* characters = PyUnicode_DATA(text.ptr());
  {
    const py::gil_scoped_release nogil;
    const auto cut = [&](const auto* code_points) {
      windows =
          sprat::chunk(code_points, static_cast<std::size_t>(size), edges.data(), edges.size() / 2,
                       static_cast<std::size_t>(most), static_cast<std::size_t>(overlap));
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
    *place++ = edges[static_cast<std::size_t>(2 * window.first)];
    *place++ = edges[static_cast<std::size_t>(2 * window.last - 1)];
  }
  return py::make_tuple(tokens, places);
}

py::array_t<float> pool(const py::object& hidden_bth, const py::object& lengths_b,
                        const py::object& mode, const py::object& normalize) {
  const py::array hidden = checked_array<float>("hidden_bth", hidden_bth, 3);
  const py::array lengths = checked_array<std::int32_t>("lengths_b", lengths_b, 1);
  const auto pooling =
      static_cast<sprat::Pooling>(checked_choice("mode", mode, {"mean", "cls", "last"}));
  const bool normalized = checked_bool("normalize", normalize);
  const py::ssize_t tokens = hidden.shape(1);
  const auto checked = checked_lengths("lengths_b", lengths, "hidden_bth", hidden.shape(0), tokens);
  const auto width = static_cast<std::size_t>(hidden.shape(2));
  auto pooled = empty<float>(checked.size(), width);
  const auto* source = static_cast<const float*>(hidden.data());
  float* target = pooled.mutable_data();
  {
    const py::gil_scoped_release nogil;
    sprat::pool(source, checked.data(), checked.size(), static_cast<std::size_t>(tokens), width,
                pooling, normalized, target);
  }
  return pooled;
}

py::tuple pack(const py::object& ids_n, const py::object& offsets_object,
               const py::object& vocabulary_size, const py::object& order_m) {
  const py::array ids = checked_array<std::int32_t>("ids_n", ids_n, 1);
  if (ids.size() > int32_max) {
    throw py::value_error("ids_n: expected at most " + std::to_string(int32_max) + " ids, got " +
                          std::to_string(ids.size()));
  }
  const auto offsets = checked_offsets("offsets", offsets_object, ids.size());
  const auto limit =
      static_cast<std::int32_t>(checked_int("vocabulary_size", vocabulary_size, 1, int32_max));
  const std::size_t rows = offsets.size() - 1;
  std::vector<std::int32_t> order;
  if (order_m.is_none()) {
    order.resize(rows);
    std::iota(order.begin(), order.end(), 0);
  } else {
    order = copied<std::int32_t>(checked_array<std::int32_t>("order_m", order_m, 1));
    check_ids("order_m", order, static_cast<py::ssize_t>(rows));
  }
  py::array_t<std::int32_t> lengths(static_cast<py::ssize_t>(order.size()));
  std::int32_t tokens = 0;
  for (std::size_t m = 0; m < order.size(); ++m) {
    const auto row = static_cast<std::size_t>(order[m]);
    const auto length = static_cast<std::int32_t>(offsets[row + 1] - offsets[row]);
    lengths.mutable_data()[m] = length;
    tokens = std::max(tokens, length);
  }
  auto padded = empty<std::int32_t>(order.size(), static_cast<std::size_t>(tokens));
  auto mask = empty<bool>(order.size(), static_cast<std::size_t>(tokens));
  const auto* source = static_cast<const std::int32_t*>(ids.data());
  std::int32_t* target = padded.mutable_data();
  bool* marks = mask.mutable_data();
  std::int64_t wrong = -1;
  {
    const py::gil_scoped_release nogil;
    wrong = sprat::pack(source, offsets.data(), order.data(), order.size(),
                        static_cast<std::size_t>(tokens), limit, target, marks);
  }
  if (wrong >= 0) {
    throw py::value_error("ids_n[" + std::to_string(wrong) + "]: expected a value in [0, " +
                          std::to_string(limit) + "), got " + std::to_string(source[wrong]));
  }
  return py::make_tuple(padded, mask, lengths);
}

py::tuple length_order(const py::object& lengths_b) {
  const auto lengths = copied<std::int32_t>(checked_array<std::int32_t>("lengths_b", lengths_b, 1));
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    if (lengths[b] < 0) {
      throw py::value_error("lengths_b[" + std::to_string(b) + "]: expected a length from 0, got " +
                            std::to_string(lengths[b]));
    }
  }
  py::array_t<std::int32_t> order(static_cast<py::ssize_t>(lengths.size()));
  py::array_t<std::int32_t> inverse(static_cast<py::ssize_t>(lengths.size()));
  std::int32_t* rows = order.mutable_data();
  std::int32_t* places = inverse.mutable_data();
  {
    const py::gil_scoped_release nogil;
    sprat::length_order(lengths.data(), lengths.size(), rows, places);
  }
  return py::make_tuple(order, inverse);
}

py::tuple classify_head(const py::object& vectors_bh, const py::object& weight_kh,
                        const py::object& bias_k, const py::object& temperature_object,
                        const py::object& top_k) {
  const py::array vectors = checked_array<float>("vectors_bh", vectors_bh, 2);
  const py::array weight = checked_array<float>("weight_kh", weight_kh, 2);
  const py::array bias = checked_array<float>("bias_k", bias_k, 1);
  const py::ssize_t width = vectors.shape(1);
  const py::ssize_t labels = bias.shape(0);
  if (weight.shape(0) != labels || weight.shape(1) != width) {
    throw py::value_error("weight_kh: expected shape (" + std::to_string(labels) + ", " +
                          std::to_string(width) +
                          "), a row for each of bias_k and a column for each of vectors_bh, got " +
                          text(weight.attr("shape")));
  }
  const double temperature = checked_positive("temperature", temperature_object);
  const auto top = static_cast<std::size_t>(checked_int("top_k", top_k, 1, labels));
  const auto batch = static_cast<std::size_t>(vectors.shape(0));
  auto indices = empty<std::int32_t>(batch, top);
  auto probabilities = empty<float>(batch, top);
  const auto* vector = static_cast<const float*>(vectors.data());
  const auto* rows = static_cast<const float*>(weight.data());
  const auto* added = static_cast<const float*>(bias.data());
  std::int32_t* best = indices.mutable_data();
  float* chances = probabilities.mutable_data();
  {
    const py::gil_scoped_release nogil;
    sprat::classify_head(vector, rows, added, batch, static_cast<std::size_t>(labels),
                         static_cast<std::size_t>(width), temperature, top, best, chances);
  }
  return py::make_tuple(indices, probabilities);
}

// A table's type in C++, in place of the pointer to its values.
template <typename Call>
void with_values(const py::array& table, Call call) {
  if (table.itemsize() == 1) {
    call(static_cast<const std::int8_t*>(table.data()));
  } else if (table.itemsize() == 2) {
    call(static_cast<const sprat::Half*>(table.data()));
  } else {
    call(static_cast<const float*>(table.data()));
  }
}

py::array checked_table(const py::object& table) {
  if (py::isinstance<py::array>(table)) {
    const py::dtype dtype = py::reinterpret_borrow<py::array>(table).dtype();
    for (const char* kind : {"e", "f"}) {
      if (dtype.equal(py::dtype(kind))) {
        return checked_array("table_vh", table, dtype, 2);
      }
    }
  }
  return checked_array<std::int8_t>("table_vh", table, 2);
}

py::array_t<float> embedding_bag(const py::object& ids_n, const py::object& offsets_object,
                                 const py::object& table_vh, const py::object& weights_v,
                                 const py::object& normalize, const py::object& rows_v) {
  const auto ids = copied<std::int32_t>(checked_array<std::int32_t>("ids_n", ids_n, 1));
  const auto offsets =
      checked_offsets("offsets", offsets_object, static_cast<py::ssize_t>(ids.size()));
  const py::array table = checked_table(table_vh);
  py::ssize_t vocabulary = table.shape(0);
  std::vector<std::int32_t> rows;
  if (!rows_v.is_none()) {
    rows = copied<std::int32_t>(checked_array<std::int32_t>("rows_v", rows_v, 1));
    check_ids("rows_v", rows, vocabulary);
    vocabulary = static_cast<py::ssize_t>(rows.size());
  }
  py::array weights;
  if (!weights_v.is_none()) {
    weights = checked_array<float>("weights_v", weights_v, 1);
    if (weights.shape(0) != vocabulary) {
      throw py::value_error("weights_v: expected " + std::to_string(vocabulary) +
                            " weights, one for each " +
                            (rows_v.is_none() ? "row of table_vh" : "value of rows_v") + ", got " +
                            std::to_string(weights.shape(0)));
    }
  }
  const bool normalized = checked_bool("normalize", normalize);
  check_ids("ids_n", ids, vocabulary);
  const std::size_t batch = offsets.size() - 1;
  const auto width = static_cast<std::size_t>(table.shape(1));
  auto vectors = empty<float>(batch, width);
  const auto* factors = weights_v.is_none() ? nullptr : static_cast<const float*>(weights.data());
  const std::int32_t* mapping = rows_v.is_none() ? nullptr : rows.data();
  float* target = vectors.mutable_data();
  with_values(table, [&](const auto* values) {
    using T = std::remove_const_t<std::remove_reference_t<decltype(*values)>>;
    const sprat::EmbeddingTable<T> rows_of{values, width, factors, mapping};
    const py::gil_scoped_release nogil;
    sprat::embedding_bag(ids.data(), offsets.data(), batch, rows_of, normalized, target);
  });
  return vectors;
}

}  // namespace

PYBIND11_MODULE(_array, module) {
  module.doc() = "Kernels over numpy buffers; documented in sprat.kernels.reference.";
  py::options options;
  options.disable_function_signatures();
  const auto define = [&module](const char* name, auto function, const std::string& signature,
                                const auto&... arguments) {
    module.def(name, function, arguments..., sprat::documented(name, signature).c_str());
  };
  define("chunk", &chunk, "(text, spans, max_tokens, overlap_tokens)", py::arg("text"),
         py::arg("spans"), py::arg("max_tokens"), py::arg("overlap_tokens"));
  define("classify_head", &classify_head, "(vectors_bh, weight_kh, bias_k, temperature, top_k)",
         py::arg("vectors_bh"), py::arg("weight_kh"), py::arg("bias_k"), py::arg("temperature"),
         py::arg("top_k"));
  define("embedding_bag", &embedding_bag,
         "(ids_n, offsets, table_vh, weights_v=None, normalize=True, rows_v=None)",
         py::arg("ids_n"), py::arg("offsets"), py::arg("table_vh"),
         py::arg("weights_v") = py::none(), py::arg("normalize") = true,
         py::arg("rows_v") = py::none());
  define("length_order", &length_order, "(lengths_b)", py::arg("lengths_b"));
  define("pack", &pack, "(ids_n, offsets, vocabulary_size, order_m=None)", py::arg("ids_n"),
         py::arg("offsets"), py::arg("vocabulary_size"), py::arg("order_m") = py::none());
  define("pool", &pool, "(hidden_bth, lengths_b, mode, normalize=True)", py::arg("hidden_bth"),
         py::arg("lengths_b"), py::arg("mode"), py::arg("normalize") = true);
  module.attr("AVX2") = sprat::supports(sprat::Isa::avx2);
}
