// Kernels over logits: checks the arguments, releases the GIL, calls the headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "sprat/isa.hpp"
#include "sprat/logits.hpp"
#include "sprat/sampling.hpp"

namespace py = pybind11;
using sprat::check_ids;
using sprat::checked_array;
using sprat::checked_offsets;
using sprat::copied;
using sprat::Fault;
using sprat::text;

namespace {

constexpr const char* each_row = "one for each row of logits_bv";

struct Logits {
  py::array array;
  std::size_t rows;
  std::size_t width;

  const float* row(std::size_t b) const {
    return static_cast<const float*>(array.data()) + b * width;
  }
  float* mutable_row(std::size_t b) {
    return static_cast<float*>(array.mutable_data()) + b * width;
  }
};

Logits checked_logits(const py::object& object, bool writable) {
  const py::array array = checked_array<float>("logits_bv", object, 2);
  constexpr py::ssize_t most = std::numeric_limits<std::int32_t>::max();
  if (array.shape(1) > most) {
    throw py::value_error("logits_bv: expected at most " + std::to_string(most) +
                          " tokens a row, got " + std::to_string(array.shape(1)));
  }
  if (writable && !array.writeable()) {
    throw py::value_error("logits_bv: expected a writable array, got a read-only one");
  }
  return {array, static_cast<std::size_t>(array.shape(0)),
          static_cast<std::size_t>(array.shape(1))};
}

struct Mask {
  const std::int32_t* first = nullptr;
  std::size_t words = 0;

  const std::int32_t* row(std::size_t b) const {
    return first == nullptr ? nullptr : first + b * words;
  }
};

// A view: the caller's reference keeps the array alive.
Mask checked_mask(const py::object& object, std::size_t rows) {
  const py::array array = checked_array<std::int32_t>("mask_bw", object, 2);
  if (static_cast<std::size_t>(array.shape(0)) != rows) {
    throw py::value_error("mask_bw: expected " + std::to_string(rows) + " rows, " + each_row +
                          ", got " + std::to_string(array.shape(0)));
  }
  // A mask without words forbids all, unlike none.
  static constexpr std::int32_t nothing = 0;
  const auto words = static_cast<std::size_t>(array.shape(1));
  return {words == 0 ? &nothing : static_cast<const std::int32_t*>(array.data()), words};
}

Mask checked_optional_mask(const py::object& object, std::size_t rows) {
  return object.is_none() ? Mask{} : checked_mask(object, rows);
}

template <typename T>
std::vector<T> checked_values(const std::string& name, const py::object& object, std::size_t count,
                              const std::string& meaning) {
  const py::array array = checked_array<T>(name, object, 1);
  if (static_cast<std::size_t>(array.shape(0)) != count) {
    throw py::value_error(name + ": expected " + std::to_string(count) + " values, " + meaning +
                          ", got " + std::to_string(array.shape(0)));
  }
  return copied<T>(array);
}

[[noreturn]] void refuse(const std::string& name, std::size_t index, const std::string& expected,
                         const py::object& value) {
  throw py::value_error(name + "[" + std::to_string(index) + "]: expected " + expected + ", got " +
                        text(py::repr(value)));
}

void refuse(std::size_t row, Fault fault) {
  const std::string found = fault == Fault::nan ? "nan" : fault == Fault::infinite ? "inf" : "none";
  const std::string expected =
      fault == Fault::nothing ? "an allowed token of finite logit" : "numbers below infinity";
  throw py::value_error("logits_bv[" + std::to_string(row) + "]: expected " + expected + ", got " +
                        found);
}

// Tokens of each row.
struct Ragged {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> offsets;

  const std::int32_t* row(std::size_t b) const { return ids.data() + offsets[b]; }
  std::size_t count(std::size_t b) const {
    return static_cast<std::size_t>(offsets[b + 1] - offsets[b]);
  }
};

Ragged checked_ragged(const py::object& ids_n, const py::object& offsets, const Logits& logits) {
  Ragged ragged;
  const py::array ids = checked_array<std::int32_t>("ids_n", ids_n, 1);
  ragged.offsets = checked_offsets("offsets", offsets, ids.shape(0));
  if (ragged.offsets.size() != logits.rows + 1) {
    throw py::value_error("offsets: expected " + std::to_string(logits.rows + 1) +
                          " values, one more than rows of logits_bv, got " +
                          std::to_string(ragged.offsets.size()));
  }
  ragged.ids = copied<std::int32_t>(ids);
  check_ids("ids_n", ragged.ids, static_cast<py::ssize_t>(logits.width));
  return ragged;
}

void mask_logits(const py::object& logits_bv, const py::object& mask_bw) {
  Logits logits = checked_logits(logits_bv, true);
  const Mask mask = checked_mask(mask_bw, logits.rows);
  const sprat::Isa isa = sprat::active_isa();
  const py::gil_scoped_release nogil;
  for (std::size_t b = 0; b < logits.rows; ++b) {
    sprat::mask_logits(mask.row(b), mask.words, logits.width, logits.mutable_row(b), isa);
  }
}

void bias_logits(const py::object& logits_bv, const py::object& ids_n, const py::object& biases_n,
                 const py::object& offsets) {
  Logits logits = checked_logits(logits_bv, true);
  const Ragged ragged = checked_ragged(ids_n, offsets, logits);
  const auto biases =
      checked_values<float>("biases_n", biases_n, ragged.ids.size(), "one for each of ids_n");
  for (std::size_t n = 0; n < biases.size(); ++n) {
    if (!(biases[n] < std::numeric_limits<float>::infinity())) {
      refuse("biases_n", n, "a finite bias or -inf", py::float_(biases[n]));
    }
  }
  const py::gil_scoped_release nogil;
  for (std::size_t b = 0; b < logits.rows; ++b) {
    sprat::bias_logits(ragged.row(b), biases.data() + ragged.offsets[b], ragged.count(b),
                       logits.mutable_row(b));
  }
}

std::vector<float> checked_penalty(const std::string& name, const py::object& object,
                                   std::size_t rows, float low, const std::string& expected) {
  const auto values = checked_values<float>(name, object, rows, each_row);
  for (std::size_t b = 0; b < rows; ++b) {
    if (!(values[b] > low && values[b] < std::numeric_limits<float>::infinity())) {
      refuse(name, b, expected, py::float_(values[b]));
    }
  }
  return values;
}

void penalize_logits(const py::object& logits_bv, const py::object& ids_n,
                     const py::object& offsets, const py::object& repeat_b,
                     const py::object& frequency_b, const py::object& presence_b) {
  Logits logits = checked_logits(logits_bv, true);
  const Ragged ragged = checked_ragged(ids_n, offsets, logits);
  const auto repeat =
      checked_penalty("repeat_b", repeat_b, logits.rows, 0.0F, "a finite number above 0");
  const auto frequency =
      checked_penalty("frequency_b", frequency_b, logits.rows, sprat::lowest, "a finite number");
  const auto presence =
      checked_penalty("presence_b", presence_b, logits.rows, sprat::lowest, "a finite number");
  const py::gil_scoped_release nogil;
  for (std::size_t b = 0; b < logits.rows; ++b) {
    sprat::penalize_logits({ragged.row(b), ragged.row(b) + ragged.count(b)},
                           {repeat[b], frequency[b], presence[b]}, logits.mutable_row(b));
  }
}

py::array_t<std::int32_t> argmax(const py::object& logits_bv, const py::object& mask_bw) {
  const Logits logits = checked_logits(logits_bv, false);
  const Mask mask = checked_optional_mask(mask_bw, logits.rows);
  py::array_t<std::int32_t> best(static_cast<py::ssize_t>(logits.rows));
  std::int32_t* target = best.mutable_data();
  const sprat::Isa isa = sprat::active_isa();
  std::size_t b = 0;
  Fault fault = Fault::none;
  {
    const py::gil_scoped_release nogil;
    for (; b < logits.rows; ++b) {
      fault = sprat::argmax(logits.row(b), mask.row(b), mask.words, logits.width, isa, target[b]);
      if (fault != Fault::none) {
        break;
      }
    }
  }
  if (fault != Fault::none) {
    refuse(b, fault);
  }
  return best;
}

py::array_t<float> log_softmax(const py::object& logits_bv, const py::object& ids_n,
                               const py::object& offsets) {
  const Logits logits = checked_logits(logits_bv, false);
  Ragged ragged;
  if (offsets.is_none()) {
    ragged.ids = checked_values<std::int32_t>("ids_n", ids_n, logits.rows, each_row);
    check_ids("ids_n", ragged.ids, static_cast<py::ssize_t>(logits.width));
    for (std::size_t b = 0; b <= logits.rows; ++b) {
      ragged.offsets.push_back(static_cast<std::int64_t>(b));
    }
  } else {
    ragged = checked_ragged(ids_n, offsets, logits);
  }
  py::array_t<float> found(static_cast<py::ssize_t>(ragged.ids.size()));
  float* target = found.mutable_data();
  const sprat::Isa isa = sprat::active_isa();
  std::size_t b = 0;
  Fault fault = Fault::none;
  {
    const py::gil_scoped_release nogil;
    for (; b < logits.rows; ++b) {
      fault = sprat::log_softmax(logits.row(b), logits.width, ragged.row(b), ragged.count(b), isa,
                                 target + ragged.offsets[b]);
      if (fault != Fault::none) {
        break;
      }
    }
  }
  if (fault != Fault::none) {
    refuse(b, fault);
  }
  return found;
}

py::array_t<std::int32_t> sample(const py::object& logits_bv, const py::object& coins_b,
                                 const py::object& temperature_b, const py::object& top_k_b,
                                 const py::object& top_p_b, const py::object& min_p_b,
                                 const py::object& mask_bw) {
  const Logits logits = checked_logits(logits_bv, false);
  const std::size_t rows = logits.rows;
  const auto coins = checked_values<double>("coins_b", coins_b, rows, each_row);
  const auto temperatures = checked_values<float>("temperature_b", temperature_b, rows, each_row);
  const auto top_ks = checked_values<std::int32_t>("top_k_b", top_k_b, rows, each_row);
  const auto top_ps = checked_values<float>("top_p_b", top_p_b, rows, each_row);
  const auto min_ps = checked_values<float>("min_p_b", min_p_b, rows, each_row);
  const Mask mask = checked_optional_mask(mask_bw, rows);
  for (std::size_t b = 0; b < rows; ++b) {
    if (!(coins[b] >= 0.0 && coins[b] < 1.0)) {
      refuse("coins_b", b, "a value in [0, 1)", py::float_(coins[b]));
    }
    if (!(temperatures[b] >= 0.0F && temperatures[b] < std::numeric_limits<float>::infinity())) {
      refuse("temperature_b", b, "a value finite and at least 0", py::float_(temperatures[b]));
    }
    if (top_ks[b] < 0) {
      refuse("top_k_b", b, "a value at least 0", py::int_(top_ks[b]));
    }
    if (!(top_ps[b] > 0.0F && top_ps[b] <= 1.0F)) {
      refuse("top_p_b", b, "a value in (0, 1]", py::float_(top_ps[b]));
    }
    if (!(min_ps[b] >= 0.0F && min_ps[b] <= 1.0F)) {
      refuse("min_p_b", b, "a value in [0, 1]", py::float_(min_ps[b]));
    }
  }
  py::array_t<std::int32_t> chosen(static_cast<py::ssize_t>(rows));
  std::int32_t* target = chosen.mutable_data();
  std::size_t b = 0;
  Fault fault = Fault::none;
  {
    const py::gil_scoped_release nogil;
    sprat::Sampler sampler(rows == 0 ? 0 : logits.width, sprat::active_isa());
    for (; b < rows; ++b) {
      fault =
          sampler.sample(logits.row(b), mask.row(b), mask.words,
                         {temperatures[b], top_ks[b], top_ps[b], min_ps[b]}, coins[b], target[b]);
      if (fault != Fault::none) {
        break;
      }
    }
  }
  if (fault != Fault::none) {
    refuse(b, fault);
  }
  return chosen;
}

}  // namespace

PYBIND11_MODULE(_logits, module) {
  module.doc() = "Kernels over logits; documented in sprat.kernels.reference.";
  py::options options;
  options.disable_function_signatures();
  using sprat::documented;
  module.def("mask_logits", &mask_logits, py::arg("logits_bv"), py::arg("mask_bw"),
             documented("mask_logits", "(logits_bv, mask_bw)").c_str());
  module.def("bias_logits", &bias_logits, py::arg("logits_bv"), py::arg("ids_n"),
             py::arg("biases_n"), py::arg("offsets"),
             documented("bias_logits", "(logits_bv, ids_n, biases_n, offsets)").c_str());
  module.def("penalize_logits", &penalize_logits, py::arg("logits_bv"), py::arg("ids_n"),
             py::arg("offsets"), py::arg("repeat_b"), py::arg("frequency_b"), py::arg("presence_b"),
             documented("penalize_logits",
                        "(logits_bv, ids_n, offsets, repeat_b, frequency_b, presence_b)")
                 .c_str());
  module.def("argmax", &argmax, py::arg("logits_bv"), py::arg("mask_bw") = py::none(),
             documented("argmax", "(logits_bv, mask_bw=None)").c_str());
  module.def("log_softmax", &log_softmax, py::arg("logits_bv"), py::arg("ids_n"),
             py::arg("offsets") = py::none(),
             documented("log_softmax", "(logits_bv, ids_n, offsets=None)").c_str());
  module.def("sample", &sample, py::arg("logits_bv"), py::arg("coins_b"), py::arg("temperature_b"),
             py::arg("top_k_b"), py::arg("top_p_b"), py::arg("min_p_b"),
             py::arg("mask_bw") = py::none(),
             documented("sample",
                        "(logits_bv, coins_b, temperature_b, top_k_b, top_p_b, min_p_b, "
                        "mask_bw=None)")
                 .c_str());
}
