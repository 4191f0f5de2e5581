#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace collimate {

/// A regular expression of a tokenizer.json: Oniguruma's, in its Ruby syntax, on UTF-8, as in the tokenizers package.
class Expression {
 public:
  using Match = std::function<void(std::size_t begin, std::size_t end)>;

  /// `where` names the file in the message for an expression that does not compile.
  Expression(const std::string& pattern, const std::string& where);
  /// One that matches these characters and nothing else.
  static std::string escaped(std::string_view literal);
  /// Hands over the matches in `text`, which is valid UTF-8, from left to right; an empty one counts, unless it follows another match.
  void for_each_match(std::string_view text, const Match& match) const;

 private:
  struct Free {
    void operator()(void* compiled) const;
  };
  std::unique_ptr<void, Free> compiled_;
};

}  // namespace collimate
