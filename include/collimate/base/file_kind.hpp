#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace collimate {

/// What the first bytes of a file show it to be. `foreign`: a format that no command reads.
enum class FileKind { unknown, empty, text, json, other_encoding, page, gzip, hdf5, safetensors, foreign };

struct FileLook {
  FileKind kind = FileKind::unknown;
  std::string is = "binary data of a kind that is not known";        ///< "a Parquet file"
  std::string advice = "check the path, and how the file was made";  ///< what to do with it, with the file's name in it
};

constexpr std::size_t file_head_bytes = 4096;  ///< as many of the first bytes as a look needs

/// Looks at the first bytes of a file that has `size` bytes; `path` stands in the advice.
FileLook look_at(std::string_view head, std::uint64_t size, const std::string& path);
FileLook look_at_file(const std::string& path);  ///< unknown where it cannot be read: whoever opens it says why

/// Throws a sentence that says what the file is and what to do, where this is known and not among `accepted`.
/// wanted: what stands there in words, "a deck (a text file)".
void require_file_kind(const std::string& path, const FileLook& look, std::initializer_list<FileKind> accepted, std::string_view wanted);
void require_file_kind(const std::string& path, std::initializer_list<FileKind> accepted, std::string_view wanted);

}  // namespace collimate
