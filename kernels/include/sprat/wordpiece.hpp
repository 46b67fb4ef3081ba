// BERT's tokenizer; specified by sprat.kernels.reference.WordPiece.
//
// Over 500 lines, because normalizing, splitting and matching are one pass over the text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sprat/bert_unicode.hpp"

namespace sprat {

// A text as Python holds it: code points of 1, 2 or 4 bytes each, by its largest one.
struct TextView {
  const void* data;
  std::size_t size;  // code points
  int width;
};

inline std::u32string decoded(TextView text) {
  switch (text.width) {
    case 1: {
      const auto* first = static_cast<const std::uint8_t*>(text.data);
      return {first, first + text.size};
    }
    case 2: {
      const auto* first = static_cast<const std::uint16_t*>(text.data);
      return {first, first + text.size};
    }
    default: {
      const auto* first = static_cast<const std::uint32_t*>(text.data);
      return {first, first + text.size};
    }
  }
}

struct WordPieceSettings {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
  std::size_t max_word_chars = 100;
  std::int32_t unknown = 0;
  std::vector<std::int32_t> before, after;  // special tokens around each row
};

struct WordPieceToken {
  std::u32string text;
  std::int32_t id;
};

// The longest entry of a vocabulary that code points start with, in one step a code point. Two
// tries, of words' beginnings and of their continuations, share a double array: the child of cell
// n by code c is cell base(n) + c, if that says that n is its parent.
class PieceTrie {
 public:
  using Codes = std::vector<std::uint32_t>;  // each from 1 to `alphabet`; 0 is in no entry
  using Entry = std::pair<Codes, std::int32_t>;

  static constexpr std::uint32_t beginning = 0;
  static constexpr std::uint32_t continuation = 1;

  void build(std::vector<Entry> beginnings, std::vector<Entry> continuations,
             std::uint32_t alphabet) {
    alphabet_ = alphabet;
    cells_ = {{0, root}, {0, root}};
    ids_ = {-1, -1};
    free_ = {{nowhere, nowhere}, {nowhere, nowhere}};
    grow(1);
    std::vector<Range> open;
    std::sort(beginnings.begin(), beginnings.end());
    std::sort(continuations.begin(), continuations.end());
    open.push_back({beginning, &beginnings, 0, beginnings.size(), 0});
    open.push_back({continuation, &continuations, 0, continuations.size(), 0});
    for (std::size_t i = 0; i < open.size(); ++i) {  // Breadth first: the top stays together.
      place(Range(open[i]), open);
    }
    cells_.shrink_to_fit();
    ids_.shrink_to_fit();
    free_ = {};
  }

  // The end of the longest entry at codes[at...size) and its id, or `at` where there is none.
  // `code(i)` gives the i-th code.
  template <typename Code>
  std::size_t longest(const Code& code, std::size_t at, std::size_t size, std::int32_t& id) const {
    std::uint32_t cell = at == 0 ? beginning : continuation;
    std::uint32_t found = 0;
    std::size_t end = at;
    for (std::size_t i = at; i < size; ++i) {
      const std::uint32_t child = (cells_[cell].base >> 1) + code(i);
      if (cells_[child].parent != cell) {
        break;
      }
      cell = child;
      if ((cells_[cell].base & 1) != 0) {
        found = cell;
        end = i + 1;
      }
    }
    id = ids_[found];
    return end;
  }

 private:
  struct Cell {
    std::uint32_t base;  // doubled, plus 1 where an entry ends
    std::uint32_t parent;
  };

  // The entries [low, high) share their first `depth` codes, which lead to `cell`.
  struct Range {
    std::uint32_t cell;
    const std::vector<Entry>* entries;
    std::size_t low, high, depth;
  };

  // Free cells in a ring, with cell 0, which is never free, between its last and its first.
  struct Free {
    std::uint32_t next, previous;
  };

  static constexpr std::uint32_t nowhere = 0;
  static constexpr std::uint32_t root = 0xFFFFFFFE;
  static constexpr std::uint32_t nobody = 0xFFFFFFFF;
  static constexpr std::size_t attempts = 64;

  void place(Range range, std::vector<Range>& open) {
    const std::vector<Entry>& entries = *range.entries;
    std::size_t low = range.low;
    if (low < range.high && entries[low].first.size() == range.depth) {
      if (range.depth != 0) {
        cells_[range.cell].base |= 1;
        ids_[range.cell] = entries[low].second;
      }
      ++low;
    }
    Codes children;
    std::vector<std::size_t> starts;
    for (std::size_t i = low; i < range.high; ++i) {
      const std::uint32_t code = entries[i].first[range.depth];
      if (children.empty() || children.back() != code) {
        children.push_back(code);
        starts.push_back(i);
      }
    }
    if (children.empty()) {
      return;
    }
    starts.push_back(range.high);
    const std::uint32_t base = free_base(children);
    cells_[range.cell].base |= base << 1;
    for (std::size_t i = 0; i < children.size(); ++i) {
      const std::uint32_t cell = base + children[i];
      occupy(cell, range.cell);
      open.push_back({cell, range.entries, starts[i], starts[i + 1], range.depth + 1});
    }
  }

  // A base whose children are all free. After some attempts the end of the array is taken, so that
  // building takes linear time whatever the vocabulary is.
  std::uint32_t free_base(const Codes& children) {
    std::uint32_t cell = free_[nowhere].next;
    for (std::size_t tried = 0; tried < attempts && cell != nowhere; ++tried) {
      const std::uint32_t base = cell - children[0];
      if (cell > children[0] &&
          std::all_of(children.begin(), children.end(), [&](std::uint32_t code) {
            return base + code >= cells_.size() || cells_[base + code].parent == nobody;
          })) {
        grow(base);
        return base;
      }
      cell = free_[cell].next;
    }
    const auto base = static_cast<std::uint32_t>(cells_.size());
    grow(base);
    return base;
  }

  // Every code of the alphabet leads from this base into the array: walking needs no bounds.
  void grow(std::uint32_t base) {
    while (cells_.size() <= std::size_t{base} + alphabet_) {
      const auto cell = static_cast<std::uint32_t>(cells_.size());
      cells_.push_back({0, nobody});
      ids_.push_back(-1);
      free_.push_back({nowhere, free_[nowhere].previous});
      free_[free_[cell].previous].next = cell;
      free_[nowhere].previous = cell;
    }
  }

  void occupy(std::uint32_t cell, std::uint32_t parent) {
    cells_[cell].parent = parent;
    free_[free_[cell].previous].next = free_[cell].next;
    free_[free_[cell].next].previous = free_[cell].previous;
  }

  std::uint32_t alphabet_ = 0;
  std::vector<Cell> cells_;
  std::vector<std::int32_t> ids_;
  std::vector<Free> free_;  // only while building
};

// Rows of tokens, one after the other.
struct WordPieceRows {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> spans;    // start and end of each token, in code points of its text
  std::vector<std::int64_t> ends;     // of each row, in tokens
  std::vector<std::int64_t> dropped;  // of each row; -1 for an unknown number

  void clear() {
    ids.clear();
    spans.clear();
    ends.clear();
    dropped.clear();
  }
};

struct WordPieceOptions {
  std::size_t max_tokens = std::numeric_limits<std::size_t>::max();
  bool count_dropped = false;
  bool parse_special = false;
};

class WordPiece {
 public:
  // `prefix` marks the entries of the vocabulary that continue a word. `special` is what
  // `parse_special` finds in texts.
  WordPiece(WordPieceSettings settings, const std::vector<WordPieceToken>& vocabulary,
            const std::u32string& prefix, std::vector<WordPieceToken> special)
      : settings_(std::move(settings)), special_(std::move(special)) {
    read_vocabulary(vocabulary, prefix);
    tabulate();
    std::sort(special_.begin(), special_.end(), [](const auto& a, const auto& b) {
      return a.text.size() > b.text.size();  // The longest one is found first.
    });
  }

  // Appends a row. The text is well-formed: it holds no surrogates.
  void encode(TextView text, const WordPieceOptions& options, WordPieceRows& rows) const {
    switch (text.width) {
      case 1:
        return encode(static_cast<const std::uint8_t*>(text.data), text.size, options, rows);
      case 2:
        return encode(static_cast<const std::uint16_t*>(text.data), text.size, options, rows);
      default:
        return encode(static_cast<const std::uint32_t*>(text.data), text.size, options, rows);
    }
  }

  std::int32_t unknown() const { return settings_.unknown; }

 private:
  // What becomes of a code point: an action, and 28 bits that say more.
  enum Action : std::uint32_t {
    letter,   // one of a word; its code in the trie, or 0 when no entry has it
    alone,    // the same, but a word of its own
    nothing,  // it leaves no trace
    space,    // words end here
    several,  // more than one of the above; where they are in `sequences_`
    mark,     // combining, or composed with such, and kept: moves by the order of decomposition
  };
  static constexpr unsigned action_shift = 28;
  static constexpr std::uint32_t operand_mask = (1U << action_shift) - 1;

  static constexpr std::uint32_t entry(Action action, std::uint32_t operand = 0) {
    return static_cast<std::uint32_t>(action) << action_shift | operand;
  }

  // A character of a normalized word and where it comes from.
  struct Character {
    std::uint32_t code;
    std::int32_t start;
  };

  // -- what is known of code points, for the constructor and for rare ones ------------------

  enum Property : std::uint8_t {
    is_dropped_char = 1,
    is_white = 2,
    is_chinese_char = 4,
    is_mark = 8,  // without width: strip_accents removes it
    is_punctuation = 16,
    is_ranked = 32,
    is_decomposed = 64,
    is_upper = 128,
  };

  static constexpr std::uint32_t code_points = 0x110000;
  static constexpr std::uint32_t first_syllable = 0xAC00;  // Hangul
  static constexpr std::uint32_t last_syllable = 0xD7A3;

  // The tables of `bert_unicode`, spread out once a process.
  static const std::vector<std::uint8_t>& properties() {
    static const std::vector<std::uint8_t> all = [] {
      std::vector<std::uint8_t> made(code_points);
      const auto spread = [&made](const auto& table, Property each) {
        for (const auto& row : table) {
          for (std::uint32_t each_code = row.first; each_code <= row.last; ++each_code) {
            made[each_code] |= each;
          }
        }
      };
      spread(bert_unicode::dropped, is_dropped_char);
      spread(bert_unicode::white, is_white);
      spread(bert_unicode::chinese, is_chinese_char);
      spread(bert_unicode::marks, is_mark);
      spread(bert_unicode::punctuation, is_punctuation);
      spread(bert_unicode::ranks, is_ranked);
      std::fill(made.begin() + first_syllable, made.begin() + last_syllable + 1, is_decomposed);
      for (const auto& row : bert_unicode::decompositions) {
        made[row.from] |= is_decomposed;
      }
      for (const auto& row : bert_unicode::lower) {
        made[row.from] |= is_upper;
      }
      return made;
    }();
    return all;
  }

  static bool has(std::uint32_t code, Property property) {
    return (properties()[code] & property) != 0;
  }

  static std::uint32_t rank(std::uint32_t code) {
    if (!has(code, is_ranked)) {
      return 0;
    }
    const auto* row =
        std::upper_bound(std::begin(bert_unicode::ranks), std::end(bert_unicode::ranks), code,
                         [](std::uint32_t value, const auto& each) { return value < each.first; });
    return std::prev(row)->rank;
  }

  template <typename Table>
  static std::u32string mapped(const Table& table, std::uint32_t code) {
    std::u32string parts;
    const auto* row =
        std::lower_bound(std::begin(table), std::end(table), code,
                         [](const auto& each, std::uint32_t value) { return each.from < value; });
    for (; row != std::end(table) && row->from == code; ++row) {
      parts.push_back(row->to);
    }
    return parts;
  }

  static std::u32string decomposed(std::uint32_t code) {
    if (!has(code, is_decomposed)) {
      return std::u32string(1, code);
    }
    if (code < first_syllable || code > last_syllable) {
      return mapped(bert_unicode::decompositions, code);
    }
    constexpr std::uint32_t vowels = 21, tails = 28;
    const std::uint32_t syllable = code - first_syllable;
    std::u32string parts;
    parts.push_back(0x1100 + syllable / (vowels * tails));
    parts.push_back(0x1161 + syllable / tails % vowels);
    if (syllable % tails != 0) {
      parts.push_back(0x11A7 + syllable % tails);
    }
    return parts;
  }

  bool is_dropped(std::uint32_t code) const {
    return settings_.clean_text && has(code, is_dropped_char);
  }

  bool is_chinese(std::uint32_t code) const {
    return settings_.handle_chinese_chars && has(code, is_chinese_char);
  }

  // Appends what becomes of a code point after decomposition: letters, `alone` and `space`.
  void finish(std::uint32_t code, std::vector<std::uint32_t>& sequence) const {
    const bool lowered = settings_.lowercase && has(code, is_upper);
    for (const char32_t each :
         lowered ? mapped(bert_unicode::lower, code) : std::u32string(1, code)) {
      if (has(each, is_white)) {
        sequence.push_back(entry(space));
      } else {
        const auto found = codes_.find(each);
        sequence.push_back(entry(has(each, is_punctuation) ? alone : letter,
                                 found == codes_.end() ? 0 : found->second));
      }
    }
  }

  // `sequence` is for use, and empty.
  std::uint32_t action_of(std::uint32_t code, std::vector<std::uint32_t>& sequence) {
    if (is_dropped(code)) {
      return entry(nothing);
    }
    for (const char32_t part :
         settings_.strip_accents ? decomposed(code) : std::u32string(1, code)) {
      if (settings_.strip_accents && has(part, is_mark)) {
        continue;
      }
      if (settings_.strip_accents && has(part, is_ranked)) {
        return entry(mark);
      }
      finish(part, sequence);
    }
    if (sequence.empty()) {
      return entry(nothing);
    }
    const bool chinese = is_chinese(code);
    if (sequence.size() == 1) {
      const bool apart = chinese && sequence[0] >> action_shift == letter;
      return apart ? entry(alone, sequence[0] & operand_mask) : sequence[0];
    }
    if (chinese) {
      sequence.insert(sequence.begin(), entry(space));
      sequence.push_back(entry(space));
    }
    const auto where = static_cast<std::uint32_t>(sequences_.size());
    sequences_.push_back(static_cast<std::uint32_t>(sequence.size()));
    sequences_.insert(sequences_.end(), sequence.begin(), sequence.end());
    return entry(several, where);
  }

  void read_vocabulary(const std::vector<WordPieceToken>& vocabulary,
                       const std::u32string& prefix) {
    std::map<char32_t, std::size_t> counts;
    for (const WordPieceToken& token : vocabulary) {
      for (const char32_t each : token.text) {
        ++counts[each];
      }
    }
    // Frequent ones get low codes, which keeps the array dense.
    std::vector<std::pair<std::size_t, char32_t>> order;
    for (const auto& [each, count] : counts) {
      order.emplace_back(count, each);
    }
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    for (const auto& [count, each] : order) {
      codes_.emplace(each, static_cast<std::uint32_t>(codes_.size() + 1));
    }
    std::vector<PieceTrie::Entry> beginnings, continuations;
    for (const WordPieceToken& token : vocabulary) {
      PieceTrie::Codes codes;
      for (const char32_t each : token.text) {
        codes.push_back(codes_.find(each)->second);
      }
      if (token.text.compare(0, prefix.size(), prefix) == 0) {
        const auto rest = codes.begin() + static_cast<std::ptrdiff_t>(prefix.size());
        continuations.emplace_back(PieceTrie::Codes(rest, codes.end()), token.id);
      }
      beginnings.emplace_back(std::move(codes), token.id);
    }
    trie_.build(std::move(beginnings), std::move(continuations),
                static_cast<std::uint32_t>(codes_.size()));
  }

  // Fills `actions_` and `blocks_`. Most blocks hold code points that are all alike; those share.
  void tabulate() {
    std::vector<bool> in_vocabulary(code_points / block_size);
    for (const auto& [code, number] : codes_) {
      in_vocabulary[code / block_size] = true;
    }
    std::map<std::uint32_t, std::uint32_t> uniform;
    std::vector<std::uint32_t> sequence;
    for (std::uint32_t first = 0; first < code_points; first += block_size) {
      const auto block = properties().begin() + first;
      const bool alike = !in_vocabulary[first / block_size] &&
                         (*block & (is_decomposed | is_upper)) == 0 &&
                         std::equal(block + 1, block + block_size, block);
      const auto end = static_cast<std::uint32_t>(actions_.size());
      if (alike) {
        sequence.clear();
        const std::uint32_t action = action_of(first, sequence);
        const auto [shared, added] = uniform.emplace(action, end);
        blocks_.push_back(shared->second);
        if (added) {
          actions_.resize(end + block_size, action);
        }
        continue;
      }
      blocks_.push_back(end);
      for (std::uint32_t i = 0; i < block_size; ++i) {
        sequence.clear();
        actions_.push_back(action_of(first + i, sequence));
      }
    }
  }

  template <typename Unit>
  std::uint32_t action(Unit code) const {
    if constexpr (sizeof(Unit) == 1) {
      return actions_[code];
    } else {
      return actions_[blocks_[code / block_size] + code % block_size];
    }
  }

  // -- encoding ---------------------------------------------------------------------------

  // A row that grows, and the word that is being read.
  class Row {
   public:
    Row(const WordPiece& owner, const WordPieceOptions& options, WordPieceRows& rows)
        : owner_(owner),
          rows_(rows),
          first_(rows.ids.size()),
          room_(options.max_tokens - owner.settings_.before.size() - owner.settings_.after.size()),
          counting_(options.count_dropped) {
      word_.reserve(std::min<std::size_t>(owner.settings_.max_word_chars, 128));
      add_special(owner.settings_.before);
      first_ += owner.settings_.before.size();
    }

    void add(std::uint32_t code, std::int32_t start) {
      if (length_ == 0) {
        start_ = start;
      }
      if (++length_ <= owner_.settings_.max_word_chars) {
        word_.push_back({code, start});
      }
      known_ = known_ && code != 0;
      end_ = start + 1;
    }

    // Takes letters, `alone` and `space`.
    void take(std::uint32_t step, std::int32_t start) {
      const std::uint32_t what = step >> action_shift;
      if (what != letter) {
        end_word();
      }
      if (what != space) {
        add(step & operand_mask, start);
        if (what == alone) {
          end_word();
        }
      }
    }

    void end_word() {
      if (length_ == 0) {
        return;
      }
      const std::size_t tokens = rows_.ids.size();
      if (!known_ || length_ > owner_.settings_.max_word_chars || !split_word()) {
        rows_.ids.resize(tokens);
        rows_.spans.resize(2 * tokens);
        push(owner_.settings_.unknown, start_, end_);
      }
      word_.clear();
      length_ = 0;
      known_ = true;
      cut();
    }

    void add_token(std::int32_t id, std::int32_t start, std::int32_t end) {
      push(id, start, end);
      cut();
    }

    // Whether what follows changes nothing.
    bool full() const { return dropped_ != 0 && !counting_; }

    void close() {
      add_special(owner_.settings_.after);
      rows_.ends.push_back(static_cast<std::int64_t>(rows_.ids.size()));
      rows_.dropped.push_back(dropped_);
    }

   private:
    void push(std::int32_t id, std::int32_t start, std::int32_t end) {
      rows_.ids.push_back(id);
      rows_.spans.push_back(start);
      rows_.spans.push_back(end);
    }

    void add_special(const std::vector<std::int32_t>& ids) {
      for (const std::int32_t id : ids) {
        push(id, 0, 0);
      }
    }

    // The longest pieces from left to right, or false where none fits.
    bool split_word() {
      const auto code = [this](std::size_t i) { return word_[i].code; };
      for (std::size_t at = 0; at < word_.size();) {
        std::int32_t id = 0;
        const std::size_t end = owner_.trie_.longest(code, at, word_.size(), id);
        if (end == at) {
          return false;
        }
        push(id, word_[at].start, word_[end - 1].start + 1);
        at = end;
      }
      return true;
    }

    void cut() {
      const std::size_t tokens = rows_.ids.size() - first_;
      if (tokens > room_) {
        dropped_ = counting_ ? dropped_ + static_cast<std::int64_t>(tokens - room_) : -1;
        rows_.ids.resize(first_ + room_);
        rows_.spans.resize(2 * (first_ + room_));
      }
    }

    const WordPiece& owner_;
    WordPieceRows& rows_;
    std::size_t first_;  // token of the text itself
    std::size_t room_;   // most of them
    bool counting_;
    std::int64_t dropped_ = 0;
    std::vector<Character> word_;  // at most as many as a word may have
    std::size_t length_ = 0;       // of the word
    bool known_ = true;            // whether all its codes are in the trie
    std::int32_t start_ = 0, end_ = 0;
  };

  template <typename Unit>
  void encode(const Unit* text, std::size_t size, const WordPieceOptions& options,
              WordPieceRows& rows) const {
    Row row(*this, options, rows);
    std::size_t at = 0;
    while (options.parse_special && !row.full()) {
      const WordPieceToken* found = nullptr;
      std::size_t start = at;
      for (; start < size && found == nullptr; ++start) {
        found = special_at(text, start, size);
      }
      if (found == nullptr) {
        break;
      }
      --start;
      encode_part(text, at, start, row);
      at = start + found->text.size();
      row.add_token(found->id, static_cast<std::int32_t>(start), static_cast<std::int32_t>(at));
    }
    encode_part(text, at, size, row);
    row.close();
  }

  template <typename Unit>
  const WordPieceToken* special_at(const Unit* text, std::size_t at, std::size_t size) const {
    for (const WordPieceToken& token : special_) {
      if (token.text.size() <= size - at &&
          std::equal(token.text.begin(), token.text.end(), text + at,
                     [](char32_t a, Unit b) { return a == char32_t{b}; })) {
        return &token;
      }
    }
    return nullptr;
  }

  template <typename Unit>
  void encode_part(const Unit* text, std::size_t first, std::size_t last, Row& row) const {
    for (std::size_t i = first; i < last; ++i) {
      const std::uint32_t step = action(text[i]);
      const auto position = static_cast<std::int32_t>(i);
      switch (step >> action_shift) {
        case letter:
          row.add(step & operand_mask, position);
          break;
        case nothing:
          break;
        case several: {
          const std::uint32_t* sequence = sequences_.data() + (step & operand_mask);
          for (std::uint32_t k = 1; k <= sequence[0]; ++k) {
            row.take(sequence[k], position);
          }
          break;
        }
        case mark:
          i = take_marks(text, first, i, last, row) - 1;
          break;
        default:
          row.take(step, position);
          if (row.full()) {
            return;
          }
      }
    }
    row.end_word();
  }

  // Decomposition puts combining marks in the order of their ranks, and the i-th mark of the
  // result counts as the i-th of the text, whichever that was. Takes the run of marks in
  // text[first...last) that the one at `at` belongs to, and returns where the run ends. Marks in
  // front of it left no trace so far, but have their places in the run.
  template <typename Unit>
  std::size_t take_marks(const Unit* text, std::size_t first, std::size_t at, std::size_t last,
                         Row& row) const {
    struct Mark {
      std::uint32_t rank, code;
      bool added;  // by a decomposition, to the place of the one before
    };
    std::vector<Mark> marks;
    std::vector<std::int32_t> places;
    std::vector<std::uint32_t> sequence;
    const auto finish_at = [&](std::uint32_t code, std::int32_t place) {
      sequence.clear();
      finish(code, sequence);
      for (const std::uint32_t step : sequence) {
        row.take(step, place);
      }
    };
    const auto add_tail = [&](const std::u32string& parts) {
      for (const char32_t part : parts) {
        if (rank(part) != 0) {
          marks.push_back({rank(part), part, true});
        }
      }
    };

    // What the run stands on, if that has marks of its own.
    std::size_t start = at;
    std::size_t base = at;
    const std::u32string own = decomposed(text[at]);
    if (rank(own[0]) == 0) {
      for (const char32_t part : own) {
        if (rank(part) == 0) {
          finish_at(part, static_cast<std::int32_t>(at));
        }
      }
      add_tail(own);
      ++start;
    } else {
      for (; start > first; --start) {
        const std::uint32_t previous = text[start - 1];
        if (is_dropped(previous)) {
          continue;
        }
        const std::u32string parts = decomposed(previous);
        if (rank(parts[0]) == 0) {
          if (!is_chinese(previous)) {
            base = start - 1;
            add_tail(parts);
          }
          break;
        }
      }
    }
    std::size_t end = start;
    for (; end < last; ++end) {
      if (is_dropped(text[end])) {
        continue;
      }
      const std::u32string parts = decomposed(text[end]);
      if (rank(parts[0]) == 0) {
        break;
      }
      places.push_back(static_cast<std::int32_t>(end));
      for (std::size_t i = 0; i < parts.size(); ++i) {
        marks.push_back({rank(parts[i]), parts[i], i != 0});
      }
    }
    std::stable_sort(marks.begin(), marks.end(),
                     [](const Mark& a, const Mark& b) { return a.rank < b.rank; });
    std::size_t taken = 0;
    for (const Mark& each : marks) {
      taken += each.added ? 0 : 1;
      if (!has(each.code, is_mark)) {
        finish_at(each.code, taken == 0 ? static_cast<std::int32_t>(base) : places[taken - 1]);
      }
    }
    return end;
  }

  static constexpr std::uint32_t block_size = 256;

  WordPieceSettings settings_;
  std::vector<WordPieceToken> special_;
  std::unordered_map<char32_t, std::uint32_t> codes_;
  PieceTrie trie_;
  std::vector<std::uint32_t> actions_;    // blocks; the first is that of Latin-1
  std::vector<std::uint32_t> blocks_;     // where the block of each 256 code points is
  std::vector<std::uint32_t> sequences_;  // a length and as many entries, again and again
};

// Where the first surrogate is, or the size of a text without one.
inline std::size_t first_surrogate(TextView text) {
  const auto search = [size = text.size](const auto* units) {
    // Without a branch, many at a time; the place is looked for only where there is one.
    bool any = false;
    for (std::size_t i = 0; i < size; ++i) {
      any |= (units[i] & 0xFFFFF800U) == 0xD800U;
    }
    std::size_t at = any ? 0 : size;
    while (at < size && (units[at] & 0xFFFFF800U) != 0xD800U) {
      ++at;
    }
    return at;
  };
  return text.width == 1   ? text.size
         : text.width == 2 ? search(static_cast<const std::uint16_t*>(text.data))
                           : search(static_cast<const std::uint32_t*>(text.data));
}

// Encodes texts, in as many parts of about the same size as there are threads; the first part runs
// on the thread of the caller. Rows are in the order of texts, part after part.
inline std::vector<WordPieceRows> encode_batch(const WordPiece& wordpiece,
                                               const std::vector<TextView>& texts,
                                               const WordPieceOptions& options,
                                               std::size_t threads) {
  threads = std::max<std::size_t>(1, std::min(threads, texts.size()));
  std::vector<WordPieceRows> parts(threads);
  if (threads == 1) {
    for (const TextView& text : texts) {
      wordpiece.encode(text, options, parts[0]);
    }
    return parts;
  }
  std::vector<std::exception_ptr> errors(threads);
  std::vector<std::size_t> edges(threads + 1, texts.size());
  std::size_t total = 0;
  for (const TextView& text : texts) {
    total += text.size + 1;
  }
  std::size_t seen = 0, part = 0;
  for (std::size_t i = 0; i < texts.size() && part < threads; ++i) {
    for (; part < threads && seen >= total / threads * part; ++part) {
      edges[part] = i;
    }
    seen += texts[i].size + 1;
  }
  const auto run = [&](std::size_t number) {
    try {
      for (std::size_t i = edges[number]; i < edges[number + 1]; ++i) {
        wordpiece.encode(texts[i], options, parts[number]);
      }
    } catch (...) {
      errors[number] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  for (std::size_t number = 1; number < threads; ++number) {
    try {
      others.emplace_back(run, number);
    } catch (const std::system_error&) {  // No thread to be had.
      run(number);
    }
  }
  run(0);
  for (std::thread& other : others) {
    other.join();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) {
      std::rethrow_exception(error);
    }
  }
  return parts;
}

}  // namespace sprat
