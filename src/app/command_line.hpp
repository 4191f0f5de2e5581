#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "collimate/base/options.hpp"
#include "collimate/data/template.hpp"
#include "collimate/device/memory_plan.hpp"

namespace collimate {

/// With --help among the words: prints the usage and all options, with --help SECTION those of one section, and returns true.
bool show_help(const OptionTable& table, std::string_view usage, const std::vector<std::string>& arguments);

/// Reads the words of a command; false after show_help().
bool read_command_line(OptionTable& table, std::string_view usage, const std::vector<std::string>& arguments);

/// --memory.device and --memory.host: the most that a command may take of each.
struct CapWords {
  std::int64_t device = 0, host = 0;
  void declare(OptionTable& table);
  MemoryCaps caps() const { return {static_cast<std::size_t>(device), static_cast<std::size_t>(host)}; }
};

/// A text of the command line, in which \n and \t stand for a line end and a tab, \\ for a backslash.
std::string unescaped(std::string_view text);

/// Writes a text to standard output; a byte that is no part of a character becomes U+FFFD.
void print_text(std::string_view text);

/// Throws where the option was left empty.
void require_option(const OptionTable& table, const std::string& name);

/// Throws where `path` is a folder with checkpoints in it, such as a run folder, naming them. Opening tells what else is wrong.
void require_one_checkpoint(const std::string& path);

/// Throws where `path` does not hold a checkpoint, which writing a checkpoint there would remove.
void require_checkpoint_place(const std::string& path);

/// Throws where `path` is there already and is no empty folder.
void require_new_folder(const std::string& path);

/// The prompt template as options of the command line. In its texts \n and \t stand for a line end and a tab, \\ for a backslash.
class TemplateOptions {
 public:
  explicit TemplateOptions(Template defaults);
  void declare(OptionTable& table);  ///< this object must outlive the table's reading
  Template rules() const;
  bool given(const OptionTable& table) const;        ///< any of them
  bool turns_given(const OptionTable& table) const;  ///< words around turns or responses

 private:
  Template rules_;
  std::string prompt_rule_, response_rule_;
};

}  // namespace collimate
