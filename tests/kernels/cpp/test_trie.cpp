#include "sprat/trie.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

using Ints = std::vector<std::int32_t>;

std::vector<sprat::Isa> variants() {
  std::vector<sprat::Isa> all = {sprat::Isa::baseline};
  if (sprat::supports(sprat::Isa::avx2)) {
    all.push_back(sprat::Isa::avx2);
  }
  return all;
}

struct Trie {
  Ints parents = {-1};
  Ints tokens = {-1};
  Ints rows = {0};
};

// Nodes hang below earlier ones, in any order; each has a row of its own.
Trie random_trie(std::size_t nodes, std::size_t width, std::mt19937& random) {
  Trie trie;
  while (trie.parents.size() < nodes) {
    const auto parent = static_cast<std::int32_t>(random() % trie.parents.size());
    const auto token = static_cast<std::int32_t>(random() % width);
    bool taken = false;
    for (std::size_t n = 1; n < trie.parents.size(); ++n) {
      taken = taken || (trie.parents[n] == parent && trie.tokens[n] == token);
    }
    if (!taken) {
      trie.rows.push_back(static_cast<std::int32_t>(trie.parents.size()));
      trie.parents.push_back(parent);
      trie.tokens.push_back(token);
    }
  }
  return trie;
}

double log_sum(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) {
    sum += std::exp(value);
  }
  return std::log(sum);
}

void matches_the_formula(std::size_t nodes, std::size_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  const Trie trie = random_trie(nodes, width, random);
  std::vector<float> logits(nodes * width);
  for (float& logit : logits) {
    logit = normal(random);
  }
  for (const auto mode : {sprat::TrieMode::constrained, sprat::TrieMode::full}) {
    std::vector<double> expected(nodes);
    for (std::size_t n = 1; n < nodes; ++n) {
      const auto parent = static_cast<std::size_t>(trie.parents[n]);
      const float* row = logits.data() + parent * width;
      std::vector<double> summed;
      for (std::size_t c = 1; c < nodes && mode == sprat::TrieMode::constrained; ++c) {
        if (trie.parents[c] == trie.parents[n]) {
          summed.push_back(row[trie.tokens[c]]);
        }
      }
      if (mode == sprat::TrieMode::full) {
        summed.assign(row, row + width);
      }
      expected[n] = expected[parent] + row[trie.tokens[n]] - log_sum(summed);
    }
    for (const sprat::Isa isa : variants()) {
      std::vector<float> scores(nodes);
      const sprat::TrieFault found =
          sprat::score_trie(logits.data(), width, trie.parents.data(), trie.tokens.data(),
                            trie.rows.data(), nodes, mode, scores.data(), isa);
      CHECK(found.fault == sprat::Fault::none);
      for (std::size_t n = 0; n < nodes; ++n) {
        CHECK(std::abs(scores[n] - expected[n]) <= 1e-5 * (1.0 + std::abs(expected[n])));
      }
    }
  }
}

// A single child needs no row under `constrained`; the row that is not there is never read.
void reads_no_row_for_a_single_child() {
  const Ints parents = {-1, 0, 1};
  const Ints tokens = {-1, 4, 7};
  const Ints rows = {-1, -1, -1};
  std::vector<float> scores(3, -1.0F);
  sprat::score_trie(nullptr, 9, parents.data(), tokens.data(), rows.data(), 3,
                    sprat::TrieMode::constrained, scores.data());
  CHECK((scores == std::vector<float>{0.0F, 0.0F, 0.0F}));
}

void names_the_row_at_fault() {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Ints parents = {-1, 0, 0};
  const Ints tokens = {-1, 0, 1};
  const Ints rows = {1, -1, -1};
  std::vector<float> scores(3);
  const auto fault = [&](float first, float second, sprat::TrieMode mode) {
    const std::vector<float> logits = {0.0F, 0.0F, first, second};
    const auto found = sprat::score_trie(logits.data(), 2, parents.data(), tokens.data(),
                                         rows.data(), 3, mode, scores.data());
    CHECK(found.fault == sprat::Fault::none || found.row == 1);
    return found.fault;
  };
  for (const auto mode : {sprat::TrieMode::constrained, sprat::TrieMode::full}) {
    CHECK(fault(0.0F, nan, mode) == sprat::Fault::nan);
    CHECK(fault(nan, infinity, mode) == sprat::Fault::nan);
    CHECK(fault(infinity, 0.0F, mode) == sprat::Fault::infinite);
    CHECK(fault(-infinity, -infinity, mode) == sprat::Fault::nothing);
    CHECK(fault(-infinity, 2.0F, mode) == sprat::Fault::none);
    CHECK(scores[1] == -infinity && std::abs(scores[2]) < 1e-6F);
  }
}

}  // namespace

int main() {
  for (const std::size_t width : {3, 8, 9, 64, 300}) {
    for (const std::size_t nodes : {1, 2, 3, 10, 60}) {
      matches_the_formula(nodes, width, static_cast<unsigned>(width * 100 + nodes));
    }
  }
  reads_no_row_for_a_single_child();
  names_the_row_at_fault();
  return 0;
}
