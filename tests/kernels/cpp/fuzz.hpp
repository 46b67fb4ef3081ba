// A small fuzzer for programs that are built with sanitizers: mutates seeds from a folder, the same
// way in every run, until the time is over. An input that fails is printed, to become a seed.
//
//     program SEEDS SECONDS
#pragma once

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "check.hpp"

using Bytes = std::vector<std::uint8_t>;

inline Bytes current_input;

inline void show_input() {
  if (!current_input.empty()) {
    std::fprintf(stderr, "input:");
    for (const std::uint8_t byte : current_input) {
      std::fprintf(stderr, " %02x", unsigned{byte});
    }
    std::fprintf(stderr, "\n");
  }
}

// Changes a few bytes, repeats or removes a stretch, or splices in a stretch of another input.
inline void mutate(Bytes& bytes, const Bytes& other, std::mt19937& random) {
  const auto below = [&random](std::size_t bound) { return bound == 0 ? 0 : random() % bound; };
  const auto stretch = [&below](const Bytes& from) {
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(below(from.size() + 1));
    const auto left = static_cast<std::size_t>(from.end() - first);
    return Bytes(first,
                 first + static_cast<std::ptrdiff_t>(below(std::min<std::size_t>(left, 32) + 1)));
  };
  for (std::size_t rounds = 1 + below(4); rounds > 0; --rounds) {
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1));
    switch (below(4)) {
      case 0:
        if (at != bytes.end()) {
          *at = static_cast<std::uint8_t>(below(256));
        }
        break;
      case 1:
        if (at != bytes.end()) {
          *at = static_cast<std::uint8_t>(*at ^ (1U << below(8)));
        }
        break;
      case 2:
        bytes.erase(
            at,
            at + static_cast<std::ptrdiff_t>(below(
                     std::min<std::size_t>(static_cast<std::size_t>(bytes.end() - at), 32) + 1)));
        break;
      default: {
        const Bytes piece = stretch(below(2) == 0 ? bytes : other);
        bytes.insert(at, piece.begin(), piece.end());
      }
    }
  }
  bytes.resize(std::min<std::size_t>(bytes.size(), 4096));
}

template <typename Target>
int fuzz(int count, char** arguments, const Target& target) {
  CHECK(count == 3);
  std::vector<std::filesystem::path> paths(std::filesystem::directory_iterator(arguments[1]), {});
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  CHECK(!corpus.empty());
  __sanitizer_set_death_callback(show_input);
  std::atexit(show_input);
  const auto run = [&target](const Bytes& bytes) {
    current_input = bytes;
    target(bytes);
  };
  std::for_each(corpus.begin(), corpus.end(), run);
  std::mt19937 random(1);
  std::size_t runs = corpus.size();
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(arguments[2]));
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    Bytes bytes = corpus[random() % corpus.size()];
    mutate(bytes, corpus[random() % corpus.size()], random);
    run(bytes);
    if (random() % 64 == 0) {  // Mutations add up, in a corpus that does not grow for ever.
      corpus.size() < 4096 ? corpus.push_back(bytes)
                           : void(corpus[random() % corpus.size()] = bytes);
    }
  }
  current_input.clear();
  std::printf("%zu inputs\n", runs);
  return 0;
}
