// Log-probabilities at the nodes of a trie; specified by sprat.kernels.reference.score_trie.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "sprat/isa.hpp"
#include "sprat/logits.hpp"

namespace sprat {

enum class TrieMode { constrained, full };

struct TrieFault {
  Fault fault = Fault::none;
  std::int32_t row = 0;
};

// The logarithm of the sum of the exponentials of a whole row.
inline Fault log_total(const float* logits, std::size_t width, Isa isa, double& total) {
  const Peak peak = SPRAT_DISPATCH(isa, peak_free, (logits, width));
  if (peak.fault == Fault::none) {
    total = static_cast<double>(peak.value) +
            std::log(SPRAT_DISPATCH(isa, total_weight, (logits, width, peak.value)));
  }
  return peak.fault;
}

// logits: [any, width]; parents, tokens, rows, scores: [nodes], a trie as the specification has it.
// Children may stand anywhere behind their parents, so each pass goes over all nodes once.
inline TrieFault score_trie(const float* logits, std::size_t width, const std::int32_t* parents,
                            const std::int32_t* tokens, const std::int32_t* rows, std::size_t nodes,
                            TrieMode mode, float* scores, Isa isa = active_isa()) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto at = [](std::int32_t index) { return static_cast<std::size_t>(index); };
  std::vector<std::int32_t> children(nodes);
  for (std::size_t n = 1; n < nodes; ++n) {
    ++children[at(parents[n])];
  }
  // Each logit is read once: whoever writes to them meanwhile changes nothing any more.
  const std::int32_t least = mode == TrieMode::constrained ? 2 : 1;
  std::vector<double> found(nodes);
  for (std::size_t n = 1; n < nodes; ++n) {
    const std::size_t parent = at(parents[n]);
    if (children[parent] >= least) {
      found[n] = logits[at(rows[parent]) * width + at(tokens[n])];
    }
  }
  std::vector<double> totals(nodes);
  if (mode == TrieMode::full) {
    for (std::size_t n = 0; n < nodes; ++n) {
      if (children[n] >= least) {
        const Fault fault = log_total(logits + at(rows[n]) * width, width, isa, totals[n]);
        if (fault != Fault::none) {
          return {fault, rows[n]};
        }
      }
    }
  } else {
    std::vector<double> greatest(nodes, -infinity);
    std::vector<char> nan(nodes);
    for (std::size_t n = 1; n < nodes; ++n) {
      const std::size_t parent = at(parents[n]);
      greatest[parent] = std::max(greatest[parent], found[n]);
      nan[parent] |= static_cast<char>(std::isnan(found[n]));
    }
    for (std::size_t n = 0; n < nodes; ++n) {
      if (children[n] >= least && (nan[n] != 0 || std::isinf(greatest[n]))) {
        return {nan[n] != 0       ? Fault::nan
                : greatest[n] > 0 ? Fault::infinite
                                  : Fault::nothing,
                rows[n]};
      }
    }
    for (std::size_t n = 1; n < nodes; ++n) {
      const std::size_t parent = at(parents[n]);
      totals[parent] += std::exp(found[n] - greatest[parent]);
    }
    for (std::size_t n = 0; n < nodes; ++n) {
      totals[n] = greatest[n] + std::log(totals[n]);
    }
  }
  std::vector<double> sums(nodes);
  scores[0] = 0.0F;
  for (std::size_t n = 1; n < nodes; ++n) {
    const std::size_t parent = at(parents[n]);
    sums[n] = sums[parent] + (children[parent] >= least ? found[n] - totals[parent] : 0.0);
    scores[n] = static_cast<float>(sums[n]);
  }
  return {};
}

}  // namespace sprat
