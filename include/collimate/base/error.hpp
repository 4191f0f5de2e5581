#pragma once
#include <fmt/format.h>

#include <concepts>
#include <filesystem>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace collimate {

/// Exit codes of the program.
enum class ExitCode : int { done = 0, failure = 1, input_error = 2, does_not_fit = 3, requeue = 75 };

/// Any failure of Collimate: a sentence that says what, where and what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& sentence, std::source_location place = std::source_location::current())
      : std::runtime_error(sentence), code_(code), place_(place) {}
  ExitCode code() const { return code_; }
  const std::source_location& place() const { return place_; }

 private:
  ExitCode code_;
  std::source_location place_;
};

/// The operating system's answer about a path, which the deck, the command line or a file has named.
inline Error path_error(const std::filesystem::filesystem_error& error) {
  return Error(ExitCode::input_error,
               fmt::format("'{}' cannot be used: {}; check the path", error.path1().string(), error.code().message()));
}

/// What went wrong in a work that ranks share, thrown where the work is over: no rank waits for this one, so that all can agree on it.
class LateError : public Error {
 public:
  explicit LateError(const Error& error) : Error(error) {}
};

/// A compile-time checked format string that remembers where it was written.
template <class... Args>
struct Sentence {
  template <class Text>
    requires std::convertible_to<const Text&, std::string_view>
  consteval Sentence(const Text& text, std::source_location place = std::source_location::current())
      : format(text), place(place) {}
  fmt::format_string<Args...> format;
  std::source_location place;
};

/// Throws an input error (exit code 2): the deck, a file or the state it describes is at fault.
template <class... Args>
[[noreturn]] void fail(Sentence<std::type_identity_t<Args>...> sentence, Args&&... args) {
  throw Error(ExitCode::input_error, fmt::format(sentence.format, std::forward<Args>(args)...), sentence.place);
}

/// Throws an Error with another exit code.
template <class... Args>
[[noreturn]] void fail_with(ExitCode code, Sentence<std::type_identity_t<Args>...> sentence, Args&&... args) {
  throw Error(code, fmt::format(sentence.format, std::forward<Args>(args)...), sentence.place);
}

/// Always-on check of input and state: `require(rank < size, "rank {} is not below {}", rank, size)`.
template <class... Args>
void require(bool condition, Sentence<std::type_identity_t<Args>...> sentence, Args&&... args) {
  if (!condition) [[unlikely]]
    throw Error(ExitCode::input_error, fmt::format(sentence.format, std::forward<Args>(args)...), sentence.place);
}

/// Always-on check of our own logic (exit code 1): a failure is a defect of Collimate.
template <class... Args>
void ensure(bool condition, Sentence<std::type_identity_t<Args>...> sentence, Args&&... args) {
  if (!condition) [[unlikely]]
    throw Error(ExitCode::failure, fmt::format(sentence.format, std::forward<Args>(args)...), sentence.place);
}

}  // namespace collimate
