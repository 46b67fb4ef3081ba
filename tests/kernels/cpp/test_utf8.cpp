#include "sprat/utf8.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"

namespace {

const std::string replacement = "\xEF\xBF\xBD";

std::string decode(const std::vector<std::string>& pieces) {
  sprat::Utf8Stream stream;
  std::string text;
  for (const std::string& piece : pieces) {
    // A buffer of exactly this size: AddressSanitizer sees a read past the piece.
    const std::vector<char> bytes(piece.begin(), piece.end());
    stream.feed(std::string_view(bytes.data(), bytes.size()), text);
  }
  stream.flush(text);
  return text;
}

struct Case {
  std::string bytes;
  std::string text;
};

std::vector<Case> cases() {
  const auto replaced = [](int count) {
    std::string text;
    while (count-- > 0) {
      text += replacement;
    }
    return text;
  };
  std::vector<Case> all;
  for (const char* same :
       {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    all.push_back({same, same});
  }
  all.push_back({std::string(1, '\0'), std::string(1, '\0')});
  all.push_back({"\x80", replaced(1)});
  all.push_back({"\xC0\xAF", replaced(2)});
  all.push_back({"\xE0\x9F\xBF", replaced(3)});
  all.push_back({"\xED\xA0\x80", replaced(3)});
  all.push_back({"\xF0\x8F\xBF\xBF", replaced(4)});
  all.push_back({"\xF4\x90\x80\x80", replaced(4)});
  all.push_back({"\xF8", replaced(1)});
  all.push_back({"\xFF", replaced(1)});
  for (const char* cut : {"\xC3", "\xE2", "\xE2\x82", "\xF0", "\xF0\x9F", "\xF0\x9F\x90"}) {
    all.push_back({cut, replaced(1)});
  }
  return all;
}

// A case is whole by the time its successor starts, so texts simply follow each other.
void decodes_every_pair_at_every_two_splits() {
  for (const Case& first : cases()) {
    for (const Case& second : cases()) {
      if (!second.bytes.empty() && (second.bytes[0] & 0xC0) == 0x80) {
        continue;  // It would continue the first.
      }
      const std::string bytes = first.bytes + second.bytes;
      const std::string text = first.text + second.text;
      for (std::size_t a = 0; a <= bytes.size(); ++a) {
        for (std::size_t b = a; b <= bytes.size(); ++b) {
          CHECK(decode({bytes.substr(0, a), bytes.substr(a, b - a), bytes.substr(b)}) == text);
        }
      }
    }
  }
}

void appends_to_what_is_there() {
  sprat::Utf8Stream stream;
  std::string text = "<";
  stream.feed("caf\xC3", text);
  CHECK(text == "<caf");
  stream.feed("", text);
  CHECK(text == "<caf");
  stream.feed("\xA9 \xF0\x9F", text);
  CHECK(text == "<caf\xC3\xA9 ");
  stream.feed("!", text);
  CHECK(text == "<caf\xC3\xA9 " + replacement + "!");
}

void is_as_new_after_flush() {
  sprat::Utf8Stream stream;
  std::string text;
  stream.feed("\xF0\x9F\x90", text);
  stream.flush(text);
  stream.flush(text);
  CHECK(text == replacement);
  stream.feed("\xC3\xA9", text);
  CHECK(text == replacement + "\xC3\xA9");
}

}  // namespace

int main() {
  decodes_every_pair_at_every_two_splits();
  appends_to_what_is_there();
  is_as_new_after_flush();
  return 0;
}
