// Incremental UTF-8 decoding; specified by sprat.kernels.reference.Utf8Stream.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sprat {

// Turns bytes that arrive in pieces into well-formed UTF-8, piece by piece. Holds back the start of
// a sequence until it is complete; each maximal subpart of an ill-formed one becomes U+FFFD.
class Utf8Stream {
 public:
  // Appends to `text` what is certain after `piece`.
  void feed(std::string_view piece, std::string& text) {
    text.reserve(text.size() + held_size_ + piece.size());
    std::size_t copied = 0;  // bytes of the piece that are in `text` or replaced
    std::size_t start = 0;   // where the current sequence starts; 0 also for a held one
    std::size_t at = 0;
    while (at < piece.size()) {
      const auto byte = static_cast<unsigned char>(piece[at]);
      if (missing_ == 0) {
        start = at++;
        if (byte >= 0x80 && !begin(byte)) {
          text.append(piece, copied, start - copied).append(replacement);
          copied = at;
        }
      } else if (byte >= lowest_ && byte <= highest_) {
        ++at;
        lowest_ = 0x80;
        highest_ = 0xBF;
        if (--missing_ == 0 && held_size_ != 0) {
          text.append(held_, held_size_);
          held_size_ = 0;
        }
      } else {  // The byte may begin the next sequence: it is looked at again.
        text.append(piece, copied, start - copied).append(replacement);
        copied = at;
        missing_ = 0;
        held_size_ = 0;
      }
    }
    if (missing_ == 0) {
      text.append(piece, copied);
    } else {
      text.append(piece, copied, start - copied);
      held_size_ += piece.copy(held_ + held_size_, piece.size() - start, start);
    }
  }

  // Ends the input: appends U+FFFD when it ended inside a sequence. Afterwards as new.
  void flush(std::string& text) {
    if (missing_ != 0) {
      text.append(replacement);
      missing_ = 0;
      held_size_ = 0;
    }
  }

 private:
  static constexpr std::string_view replacement = "\xEF\xBF\xBD";

  // Takes the first byte of a sequence of two or more (Unicode, table 3-7): how many bytes follow,
  // and the range of the second, which rules out overlong forms, surrogates and > U+10FFFF.
  bool begin(unsigned char lead) {
    if (lead < 0xC2 || lead > 0xF4) {
      return false;
    }
    missing_ = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    lowest_ = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    highest_ = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return true;
  }

  char held_[3] = {};  // start of a sequence, from earlier pieces
  std::size_t held_size_ = 0;
  int missing_ = 0;              // bytes that the current sequence still needs
  unsigned char lowest_ = 0x80;  // range of the next one
  unsigned char highest_ = 0xBF;
};

}  // namespace sprat
