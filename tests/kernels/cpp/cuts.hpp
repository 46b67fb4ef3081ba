// Ways to cut an input of a stream into pieces.
#pragma once

#include <cstddef>
#include <random>
#include <string_view>
#include <vector>

// Each in a buffer of exactly its size: AddressSanitizer sees a read past it.
using Pieces = std::vector<std::vector<char>>;

// Pieces of a size that `next_size` says.
template <class NextSize>
Pieces cut(std::string_view input, NextSize next_size) {
  Pieces pieces;
  while (!input.empty()) {
    const std::string_view piece = input.substr(0, next_size());
    pieces.emplace_back(piece.begin(), piece.end());
    input.remove_prefix(piece.size());
  }
  return pieces;
}

// Whole, byte by byte, and twice at random places, which depend on nothing but the size.
inline std::vector<Pieces> some_cuts(std::string_view input) {
  std::mt19937 random(static_cast<std::mt19937::result_type>(input.size()));
  return {cut(input, [&input] { return input.size(); }), cut(input, [] { return 1; }),
          cut(input, [&random] { return random() % 4; }),  // sometimes nothing
          cut(input, [&random] { return random() % 12; })};
}

inline std::string_view view(const std::vector<char>& piece) {
  return {piece.data(), piece.size()};
}
