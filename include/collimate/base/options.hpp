#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace collimate {

/// The values an option may take: bounds for numbers, a list of words for strings.
struct Range {
  std::optional<double> low = {}, high = {};
  bool low_included = true;
  std::vector<std::string> words = {};
  bool or_zero = false;  ///< 0 is in range, too
  bool high_included = true;
  bool to_write = false;  ///< a path at which something is written
  std::string text() const;  ///< ">= 0", "> 0 and <= 1", "1..64", "one of model, lexicon"; empty: anything
};
Range any();
Range at_least(double low);
Range more_than(double low);
Range between(double low, double high);  ///< both included
Range at_least_below(double low, double high);  ///< low included
Range zero_or_between(double low, double high);
Range one_of(std::vector<std::string> words);
/// A path at which something is written. ~ and $ are refused there: where no shell has replaced them, a folder would get their name.
Range path_to_write();

/// All options of a command: declared once by each room, read from the command line and a deck, printed as help.
///
/// A deck is an INI file: `[section]` lines and `key = value` lines (outside of sections also `section.key = value`); `#` starts a
/// comment only as the first character of a line; a value with a # first or behind a blank is refused, since a comment was probably meant. A
/// value with such a #, with blanks at its ends or several lines is written in double quotes with the escapes \n, \t, \", \\. Lists are separated by commas. With the unit "bytes" a whole number
/// may be written 2GiB or 512MiB. The command line (`--section.key=value`, `--section.key value`, `--flag`) wins over the deck.
/// A deck gives an option once. On the command line the last one counts, so that a wrapper script can be overridden; the elements of lists add up.
///
/// Every error is an input error that names the option, the value, its range and the file and line it came from.
class OptionTable {
 public:
  OptionTable();
  OptionTable(OptionTable&&) noexcept;
  OptionTable& operator=(OptionTable&&) noexcept;
  ~OptionTable();

  /// Declares an option; T is bool, std::int64_t, double, std::string or std::vector<std::string>. What the variable holds
  /// now is the default; it must outlive the table's reading.
  template <class T>
  void add(std::string name, T& variable, std::string help, Range range = any(), std::string unit = "") {
    add_target(std::move(name), Target(&variable), std::move(help), std::move(range), std::move(unit));
  }
  /// Declared options that belong to the command line alone: refused in decks, left out of resolved_deck.
  void command_line_only(const std::vector<std::string>& names);
  /// The next `count` words without dashes set this option (-1: all that remain); implies command_line_only.
  void positional(const std::string& name, int count = 1);
  void renamed(const std::string& before, const std::string& name);  ///< the old name is refused with the present one
  void words_are_for(const std::string& name);  ///< a word without dashes is refused, and this option named as what it is meant for

  void read_arguments(const std::vector<std::string>& arguments);  ///< before the deck
  void read_deck_file(const std::string& path);
  void read_deck(std::string_view text, const std::string& file);  ///< the file's name is for errors

  bool given(const std::string& name) const;        ///< set by the command line or the deck
  bool changed(const std::string& name) const;      ///< given, and other than its default
  std::vector<std::string> names() const;           ///< in order of declaration
  std::string value(const std::string& name) const; ///< as text
  std::string help_text(const std::string& section = "") const;  ///< every option (of one section) with range, unit and default
  /// All values as a deck that reads back to exactly the same ones, without the options whose names start so.
  std::string resolved_deck(const std::vector<std::string>& excluded_prefixes = {}) const;

 private:
  using Target = std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::string>*>;
  struct Option;
  struct State;
  void add_target(std::string name, Target target, std::string help, Range range, std::string unit);
  Option& find(const std::string& name) const;
  std::string hint_for(const std::string& unknown, const std::string& dashes = "") const;
  void assign_all();
  [[noreturn]] void refuse_stray_word(const std::vector<std::string>& words) const;
  std::unique_ptr<State> state_;
};

}  // namespace collimate
