#include "collimate/base/file_kind.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "collimate/base/error.hpp"
#include "collimate/base/text.hpp"
#include "collimate/base/utf8.hpp"

namespace collimate {
namespace {

using namespace std::string_view_literals;

/// A format: what it is called, and what helps; FILE stands for the file's name.
struct Format {
  FileKind kind;
  std::string_view is, advice;
};

constexpr Format lfs{FileKind::foreign, "a Git LFS pointer, which only stands for the file",
                     "fetch the file itself with `git lfs pull` in the folder that was cloned, or download it"};
constexpr Format annex{FileKind::foreign, "a git-annex pointer, which only stands for the file",
                       "fetch the file itself with `git annex get FILE`"};
constexpr Format failed{FileKind::foreign, "a server's answer that the download failed",
                        "download the file again, and look at what the server says"};
constexpr Format parquet{FileKind::foreign, "a Parquet file",
                         "write it as JSONL with Python: `import datasets; datasets.Dataset.from_parquet('FILE').to_json('FILE.jsonl')`"};
constexpr Format arrow{FileKind::foreign, "an Arrow or Feather file",
                       "write it as JSONL with Python: `import datasets; datasets.Dataset.from_file('FILE').to_json('FILE.jsonl')`, or "
                       "`pandas.read_feather('FILE').to_json('FILE.jsonl', orient='records', lines=True)`"};
constexpr Format orc{
    FileKind::foreign, "an ORC file",
    "write it as JSONL with Python: `import pandas; pandas.read_orc('FILE').to_json('FILE.jsonl', orient='records', lines=True)`"};
constexpr Format avro{FileKind::foreign, "an Avro file", "write it as JSONL with `avro-tools tojson FILE > FILE.jsonl`"};
constexpr Format zip{FileKind::foreign, "a zip archive", "unpack it with `unzip FILE` and name the file inside"};
constexpr Format office{FileKind::foreign, "an office document (Excel, Word or the like)",
                        "save it as CSV or plain text in the program that made it"};
constexpr Format torch{
    FileKind::foreign, "a PyTorch file or another Python pickle",
    "save a model in Python with `model.save_pretrained('FOLDER', safe_serialization=True)` and import FOLDER; write data as JSONL"};
constexpr Format numpy{FileKind::foreign, "a NumPy file", "write what it holds as JSONL, CSV or text with Python"};
constexpr Format gguf{FileKind::foreign, "a GGUF or GGML file, made for llama.cpp",
                      "take the Hugging Face folder that it was made from: config.json, model.safetensors and the tokenizer's files"};
constexpr Format xz{FileKind::foreign, "an xz file", "unpack it with `xz -dk FILE`"};
constexpr Format bzip2{FileKind::foreign, "a bzip2 file", "unpack it with `bunzip2 -k FILE`"};
constexpr Format zstd{FileKind::foreign, "a zstd file", "unpack it with `zstd -d FILE`"};
constexpr Format lz4{FileKind::foreign, "an lz4 file", "unpack it with `lz4 -d FILE`"};
constexpr Format compress{FileKind::foreign, "a file of `compress`", "unpack it with `uncompress FILE`"};
constexpr Format tar{FileKind::foreign, "a tar archive", "unpack it with `tar -xf FILE` and name the file inside"};
constexpr Format seven{FileKind::foreign, "a 7-Zip archive", "unpack it with `7z x FILE` and name the file inside"};
constexpr Format rar{FileKind::foreign, "a RAR archive", "unpack it with `unrar x FILE` and name the file inside"};
constexpr Format gzip{FileKind::gzip, "a gzipped file",
                      "unpack it with `gunzip -k FILE`; a name that ends in .tar.gz or .tgz takes `tar -xzf FILE`"};
constexpr Format hdf5{FileKind::hdf5, "an HDF5 file",
                      "datasets that `prepare` has made are named in decks and for --like; a checkpoint is named by its folder"};
constexpr Format safetensors{FileKind::safetensors, "a safetensors file, which holds tensors",
                             "a model is imported by its folder: `collimate import --model FOLDER --output CHECKPOINT`"};
constexpr Format sqlite{FileKind::foreign, "an SQLite database",
                        "write the table as CSV with `sqlite3 -csv -header FILE 'select * from TABLE' > TABLE.csv`"};
constexpr Format pdf{FileKind::foreign, "a PDF document", "take its text out with `pdftotext FILE`"};
constexpr Format rtf{FileKind::foreign, "an RTF document", "save it as plain text in the program that made it"};
constexpr Format image{FileKind::foreign, "an image", "name a file of text"};
constexpr Format media{FileKind::foreign, "a sound or video file", "name a file of text"};
constexpr Format program{FileKind::foreign, "a program or a library", "check the path"};
constexpr Format html{FileKind::page, "an HTML page",
                      "if it was downloaded, take the address of the file itself (on huggingface.co /resolve/ instead of /blob/); else "
                      "take the text out of it"};
constexpr Format xml{FileKind::page, "an XML file", "write what is to be learned as JSONL, CSV or text"};
constexpr Format utf16le{FileKind::foreign, "text in UTF-16", "convert it with `iconv -f UTF-16LE -t UTF-8 FILE > FILE.utf8`"};
constexpr Format utf16be{FileKind::foreign, "text in UTF-16", "convert it with `iconv -f UTF-16BE -t UTF-8 FILE > FILE.utf8`"};
constexpr Format utf32le{FileKind::foreign, "text in UTF-32", "convert it with `iconv -f UTF-32LE -t UTF-8 FILE > FILE.utf8`"};
constexpr Format utf32be{FileKind::foreign, "text in UTF-32", "convert it with `iconv -f UTF-32BE -t UTF-8 FILE > FILE.utf8`"};
constexpr Format latin{FileKind::other_encoding, "text in another encoding than UTF-8",
                       "convert it, if it is a Western European one with `iconv -f WINDOWS-1252 -t UTF-8 FILE > FILE.utf8`"};
constexpr Format empty_file{FileKind::empty, "empty", "copy, download or make it again"};
constexpr Format json_text{FileKind::json, "a JSON file", "name a file of another kind"};
constexpr Format plain_text{FileKind::text, "a text file", "name a file of another kind"};

struct Signature {
  std::string_view bytes;
  const Format* format;
  std::size_t offset = 0;
};

/// Longer ones before those that begin like them.
constexpr Signature signatures[] = {{"version https://git-lfs"sv, &lfs},
                                    {"version https://hawser"sv, &lfs},
                                    {"/annex/objects/"sv, &annex},
                                    {"PAR1"sv, &parquet},
                                    {"PARE"sv, &parquet},
                                    {"ARROW1"sv, &arrow},
                                    {"FEA1"sv, &arrow},
                                    {"ORC"sv, &orc},
                                    {"Obj\x01"sv, &avro},
                                    {"PK\x03\x04"sv, &zip},
                                    {"PK\x05\x06"sv, &zip},
                                    {"PK\x07\x08"sv, &zip},
                                    {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, &office},
                                    {"\x80\x02"sv, &torch},
                                    {"\x80\x03"sv, &torch},
                                    {"\x80\x04"sv, &torch},
                                    {"\x80\x05"sv, &torch},
                                    {"\x93NUMPY"sv, &numpy},
                                    {"GGUF"sv, &gguf},
                                    {"lmgg"sv, &gguf},
                                    {"fmgg"sv, &gguf},
                                    {"tjgg"sv, &gguf},
                                    {"algg"sv, &gguf},
                                    {"\xFD\x37zXZ"sv, &xz},
                                    {"\x5D\x00\x00\x80\x00"sv, &xz},
                                    {"BZh"sv, &bzip2},
                                    {"\x28\xB5\x2F\xFD"sv, &zstd},
                                    {"\x04\x22\x4D\x18"sv, &lz4},
                                    {"\x1F\x9D"sv, &compress},
                                    {"ustar"sv, &tar, 257},
                                    {"7z\xBC\xAF\x27\x1C"sv, &seven},
                                    {"Rar!"sv, &rar},
                                    {"\x1F\x8B"sv, &gzip},
                                    {"\x89HDF\r\n\x1A\n"sv, &hdf5},
                                    {"SQLite format 3\0"sv, &sqlite},
                                    {"%PDF-"sv, &pdf},
                                    {"{\\rtf"sv, &rtf},
                                    {"\x89PNG"sv, &image},
                                    {"\xFF\xD8\xFF"sv, &image},
                                    {"GIF8"sv, &image},
                                    {"II*\0"sv, &image},
                                    {"MM\0*"sv, &image},
                                    {"WEBP"sv, &image, 8},
                                    {"RIFF"sv, &media},
                                    {"OggS"sv, &media},
                                    {"fLaC"sv, &media},
                                    {"ID3\x03"sv, &media},
                                    {"ID3\x04"sv, &media},
                                    {"ftyp"sv, &media, 4},
                                    {"\x1A\x45\xDF\xA3"sv, &media},
                                    {"\x7F\x45LF"sv, &program},
                                    {"MZ\x90"sv, &program},
                                    {"\xCF\xFA\xED\xFE"sv, &program},
                                    {"\xFF\xFE\0\0"sv, &utf32le},
                                    {"\0\0\xFE\xFF"sv, &utf32be},
                                    {"\xFF\xFE"sv, &utf16le},
                                    {"\xFE\xFF"sv, &utf16be}};

FileLook shown(const Format& format, const std::string& path) {
  return {format.kind, std::string(format.is), replace_all(std::string(format.advice), "FILE", path)};
}

bool holds(std::string_view head, std::size_t offset, std::string_view bytes) {
  return head.size() > offset && head.substr(offset).starts_with(bytes);
}

/// Letters with which a text may begin as well: "ORCs are", "PAR1".
bool begins_words(const Signature& signature) {
  return signature.format != &lfs && signature.format != &annex && signature.format != &pdf && signature.format != &rtf &&
         std::all_of(signature.bytes.begin(), signature.bytes.end(), [](char c) { return c >= ' ' && c < 127; });
}

/// What is packed in the zip archive, as far as the names of its first entries show it.
const Format& zip_content(std::string_view head) {
  const auto names = [&](std::string_view part) { return head.find(part) != std::string_view::npos; };
  if (names("[Content_Types].xml") || names("mimetypeapplication/vnd.oasis")) return office;
  if (names("/data.pkl") || names("constants.pkl") || names("/byteorder")) return torch;
  return names(".npyPK") || names(".npy\x93NUMPY") || holds(head, 30, "arr_0.npy") || names(".npy") ? numpy : zip;
}

/// UTF-16 and UTF-32 without a mark: Latin text has zeros at every second byte, or at three of four.
const Format* wide_text(std::string_view head) {
  std::size_t zeros[4] = {};
  const std::size_t count = std::min<std::size_t>(head.size(), 1024) / 4;
  for (std::size_t i = 0; i < 4 * count; ++i) zeros[i % 4] += head[i] == 0;
  const auto most = [&](std::size_t place) { return 10 * zeros[place] >= 7 * count; };
  const auto none = [&](std::size_t place) { return zeros[place] == 0; };
  if (count < 2) return nullptr;
  if (none(0) && most(1) && most(2) && most(3)) return &utf32le;
  if (most(0) && most(1) && most(2) && none(3)) return &utf32be;
  if (none(0) && most(1) && none(2) && most(3)) return &utf16le;
  return most(0) && none(1) && most(2) && none(3) ? &utf16be : nullptr;
}

/// A mark, and the bytes of the first message: as a rule some hundred.
bool begins_as_arrow_stream(std::string_view head) {
  return head.size() > 8 && head.starts_with("\xFF\xFF\xFF\xFF"sv) && head[7] == 0 && head.substr(4, 4) != "\0\0\0\0"sv;
}

bool begins_as_safetensors(std::string_view head, std::uint64_t size) {
  std::uint64_t header = 0;
  if (head.size() < 10) return false;
  std::memcpy(&header, head.data(), 8);
  return header >= 2 && header < size && head[8] == '{' && (head[9] == '"' || head[9] == '}' || head[9] == ' ');
}

std::string_view without_mark(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

const Format* page(std::string_view text) {
  text = trim(without_mark(text));
  while (text.starts_with("<!--")) {  // a comment in front of the page
    const std::size_t end = text.find("-->");
    if (end == std::string_view::npos) return nullptr;
    text = trim(text.substr(end + 3));
  }
  std::string begin(text.substr(0, 16));
  for (char& c : begin) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (const std::string_view tag : {"<!doctype html", "<html", "<head>", "<body"})
    if (begin.starts_with(tag)) return &html;
  return begin.starts_with("<?xml") ? &xml : nullptr;
}

/// Python's oldest pickles are text: a list, a dictionary, or "cMODULE NAME" on two lines.
bool begins_as_text_pickle(std::string_view head) {
  const std::size_t line = head.find('\n');
  if (line == std::string_view::npos || line < 2) return false;
  const std::string_view first = head.substr(0, line), rest = head.substr(line + 1);
  const auto all = [](std::string_view text, auto fits) { return !text.empty() && std::all_of(text.begin(), text.end(), fits); };
  const auto digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  const auto name = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; };
  if (first.starts_with("(lp") || first.starts_with("(dp")) return all(first.substr(3), digit);
  const std::size_t second = rest.find('\n');
  return first[0] == 'c' && all(first.substr(1), name) && second != std::string_view::npos && all(rest.substr(0, second), name) &&
         second + 1 < rest.size() && std::string_view("(pq").find(rest[second + 1]) != std::string_view::npos;
}

/// A server's sentence instead of the file.
bool is_refusal(std::string_view text, std::uint64_t size) {
  const std::string_view all = trim(text);
  if (size > 200) return false;
  for (const std::string_view answer : {"Entry not found", "Not Found", "404: Not Found", "Repository not found",
                                        "Invalid username or password.", "Invalid credentials in Authorization header", "Access denied"})
    if (all == answer) return true;
  return all.starts_with("Access to model ") || all.starts_with("Access to dataset ");
}

/// No zero byte and hardly a control character: text of some encoding, JSON, or another. Nothing where it is none.
const Format* text_kind(std::string_view head, std::uint64_t size) {
  const auto controls =
      std::count_if(head.begin(), head.end(), [](char c) { return (c >= 0 && c < 32 && !std::strchr("\t\n\r\f\v\x1B\b", c)) || c == 0; });
  if (head.find('\0') != std::string_view::npos || 20 * controls > std::ssize(head)) return nullptr;
  const std::size_t broken = find_invalid_utf8(head);
  const bool cut = broken != std::string_view::npos && broken + 4 > head.size() && size > head.size();  // inside the last character
  if (broken != std::string_view::npos && !cut) return &latin;
  if (is_refusal(head, size)) return &failed;
  if (const Format* markup = page(head)) return markup;
  if (begins_as_text_pickle(head)) return &torch;
  const std::string_view text = trim(without_mark(head));
  const auto second = text.size() > 1 ? text.find_first_not_of(" \t\r\n", 1) : std::string_view::npos;
  const char begin = text.empty() ? ' ' : text[0], next = second == std::string_view::npos ? ' ' : text[second];
  const bool object = begin == '{' && (next == '"' || next == '}'), list = begin == '[' && (next == '{' || next == ']');
  return object || list ? &json_text : &plain_text;
}

}  // namespace

FileLook look_at(std::string_view head, std::uint64_t size, const std::string& path) {
  if (size == 0) return shown(empty_file, path);
  if (begins_as_safetensors(head, size)) return shown(safetensors, path);  // first: the length in front may look like any signature
  const Format* text = text_kind(head, size);
  const bool readable = text == &plain_text || text == &json_text;
  for (const Signature& signature : signatures)
    if (holds(head, signature.offset, signature.bytes) && (!readable || !begins_words(signature)))
      return shown(signature.format == &zip ? zip_content(head) : *signature.format, path);
  if (begins_as_arrow_stream(head)) return shown(arrow, path);
  if (const Format* wide = wide_text(head)) return shown(*wide, path);
  return text ? shown(*text, path) : FileLook{};
}

FileLook look_at_file(const std::string& path) {
  std::error_code error;
  const std::uint64_t size = std::filesystem::is_regular_file(path, error) ? std::filesystem::file_size(path, error) : 0;
  std::ifstream file(path, std::ios::binary);
  if (error || !std::filesystem::is_regular_file(path, error) || !file.good()) return {};
  std::string head(static_cast<std::size_t>(std::min<std::uint64_t>(size, file_head_bytes)), '\0');
  file.read(head.data(), std::ssize(head));
  return file.gcount() == std::ssize(head) ? look_at(head, size, path) : FileLook{};
}

void require_file_kind(const std::string& path, const FileLook& look, std::initializer_list<FileKind> accepted, std::string_view wanted) {
  const bool good = look.kind == FileKind::unknown || std::find(accepted.begin(), accepted.end(), look.kind) != accepted.end();
  require(good, "'{}' is {}, where {} is expected: {}", path, look.is, wanted, look.advice);
}

void require_file_kind(const std::string& path, std::initializer_list<FileKind> accepted, std::string_view wanted) {
  require_file_kind(path, look_at_file(path), accepted, wanted);
}

}  // namespace collimate
