// Stop strings in text that arrives in pieces; specified by sprat.kernels.reference.StopMatcher.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sprat {

// Aho and Corasick's automaton over the bytes of the stop strings, none of them empty. What is held
// back is the longest end of the input that a stop string begins with, which is what the current
// state spells: it is read from that stop string and never stored. Pieces of whole code points give
// whole code points, because no stop string begins inside of one.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops = {}) : stops_(std::move(stops)) {
    grow_trie();
    link_failures();
  }

  // Appends to `text` what is certain after `piece`; nothing once stopped.
  void feed(std::string_view piece, std::string& text) {
    if (stopped()) {
      return;
    }
    const std::string_view held = spelled();
    std::uint32_t state = state_;
    std::size_t shown = 0;  // bytes of the held text and the piece that are certain
    std::int32_t ending = none;
    std::size_t at = 0;
    while (at < piece.size()) {
      if (state == root) {
        while (at < piece.size() && first_[byte_at(piece, at)] == root) {
          ++at;
        }
        if (at == piece.size()) {
          break;
        }
      }
      state = next(state, byte_at(piece, at++));
      ending = nodes_[state].ending;
      if (ending != none) {
        break;
      }
    }
    if (ending != none) {
      shown = held.size() + at - stops_[static_cast<std::size_t>(ending)].size();
      state = root;
    } else {
      shown = held.size() + at - nodes_[state].depth;
    }
    const std::size_t from_held = std::min(shown, held.size());
    text.reserve(text.size() + shown);
    text.append(held, 0, from_held).append(piece, 0, shown - from_held);
    state_ = state;
    matched_ = ending;
  }

  // Ends the input: appends what was held back.
  void flush(std::string& text) {
    text.append(spelled());
    state_ = root;
  }

  bool stopped() const { return matched_ != none; }

  // Which of the stop strings came; only once stopped.
  std::size_t matched() const { return static_cast<std::size_t>(matched_); }

 private:
  static constexpr std::uint32_t root = 0;
  static constexpr std::int32_t none = -1;

  struct Node {
    std::uint32_t first_child;  // the children follow each other, up to those of the next node
    std::uint32_t failure;      // the longest proper end of what this node spells that is a node
    std::uint32_t depth;        // bytes from the root
    std::uint32_t stop;         // a stop string that begins with what this node spells
    std::int32_t ending;        // the longest stop string that ends here
  };

  static unsigned char byte_at(std::string_view bytes, std::size_t at) {
    return static_cast<unsigned char>(bytes[at]);
  }

  std::string_view spelled() const {
    if (state_ == root) {
      return {};
    }
    const Node& node = nodes_[state_];
    return std::string_view(stops_[node.stop]).substr(0, node.depth);
  }

  // Level by level, each node with the range of sorted stop strings that pass through it.
  void grow_trie() {
    std::vector<std::uint32_t> order(stops_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(),
              [this](std::uint32_t a, std::uint32_t b) { return stops_[a] < stops_[b]; });
    std::vector<std::pair<std::size_t, std::size_t>> passing = {{0, order.size()}};
    nodes_.push_back({0, root, 0, 0, none});
    labels_.push_back(0);
    for (std::size_t state = 0; state < nodes_.size(); ++state) {
      auto [low, high] = passing[state];
      const std::uint32_t depth = nodes_[state].depth;
      nodes_[state].first_child = static_cast<std::uint32_t>(nodes_.size());
      for (; low < high && stops_[order[low]].size() == depth; ++low) {
        nodes_[state].ending = static_cast<std::int32_t>(order[low]);
      }
      while (low < high) {
        const unsigned char label = byte_at(stops_[order[low]], depth);
        std::size_t end = low + 1;
        while (end < high && byte_at(stops_[order[end]], depth) == label) {
          ++end;
        }
        nodes_.push_back({0, root, depth + 1, order[low], none});
        labels_.push_back(label);
        passing.emplace_back(low, end);
        low = end;
      }
    }
    nodes_.push_back({static_cast<std::uint32_t>(nodes_.size()), root, 0, 0, none});
  }

  // A failure is nearer to the root than its node: in the order of levels it is always done.
  void link_failures() {
    for (std::uint32_t child = nodes_[root].first_child; child < nodes_[root + 1].first_child;
         ++child) {
      first_[labels_[child]] = child;
    }
    for (std::uint32_t state = 1; state + 1 < nodes_.size(); ++state) {
      if (nodes_[state].ending == none) {
        nodes_[state].ending = nodes_[nodes_[state].failure].ending;
      }
      for (std::uint32_t child = nodes_[state].first_child; child < nodes_[state + 1].first_child;
           ++child) {
        nodes_[child].failure = next(nodes_[state].failure, labels_[child]);
      }
    }
  }

  std::uint32_t next(std::uint32_t state, unsigned char label) const {
    for (; state != root; state = nodes_[state].failure) {
      const std::uint32_t first = nodes_[state].first_child;
      const std::size_t count = nodes_[state + 1].first_child - first;
      const void* found = count == 0 ? nullptr : std::memchr(&labels_[first], label, count);
      if (found != nullptr) {
        return static_cast<std::uint32_t>(static_cast<const unsigned char*>(found) -
                                          labels_.data());
      }
    }
    return first_[label];
  }

  std::vector<std::string> stops_;
  std::vector<Node> nodes_;            // level by level; after the last one, a mark of the end
  std::vector<unsigned char> labels_;  // the byte that leads to each node
  std::array<std::uint32_t, 256> first_ = {};  // children of the root by byte, else the root
  std::uint32_t state_ = root;
  std::int32_t matched_ = none;
};

}  // namespace sprat
