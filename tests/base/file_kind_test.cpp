#include "collimate/base/file_kind.hpp"

#include <gmock/gmock.h>

#include <fstream>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/base/hdf5_file.hpp"
#include "collimate/base/options.hpp"

namespace collimate {
namespace {

using ::testing::HasSubstr;
using namespace std::string_literals;

struct Shown {
  std::string bytes, is, advice;
};

std::string tar_head() { return "data/" + std::string(252, '\0') + "ustar\0"s + "00" + std::string(200, '\0'); }

/// Beginnings as the programs that write these files make them.
const std::vector<Shown> foreign_files = {
    {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 538090408\n", "Git LFS pointer", "git lfs pull"},
    {"/annex/objects/SHA256E-s7--1.bin\n", "git-annex", "git annex get x"},
    {"PAR1\x15\x04\x00\x80\xff"s, "Parquet", "from_parquet('x').to_json('x.jsonl')"},
    {"ARROW1\0\0\xff\xff\xff\xff\x10\x01\0\0"s, "Arrow", "to_json"},
    {"\xff\xff\xff\xff\x58\x01\0\0\x10\0\0\0"s, "Arrow", "from_file('x')"},
    {"PK\x03\x04\x14\0\0\0\x08\0"s + "data.jsonl", "zip archive", "unzip x"},
    {"PK\x03\x04\x14\0\0\0\x08\0"s + "[Content_Types].xml", "office document", "CSV"},
    {"PK\x03\x04\0\0\x08\x08\0\0"s + "archive/data.pkl", "PyTorch", "safe_serialization=True"},
    {"PK\x03\x04\x14\0\0\0\0\0"s + std::string(20, '\0') + "arr_0.npy", "NumPy", "JSONL"},
    {"\x80\x02}q\x01."s, "pickle", "save_pretrained"},
    {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s, "PyTorch", "save_pretrained"},
    {"\x93NUMPY\x01\0v\0{'descr': '<f4'"s, "NumPy", ""},
    {"GGUF\x03\0\0\0\x22\x01\0\0"s, "GGUF", "Hugging Face folder"},
    {"\xfd\x37zXZ\0\0\x04\xe6\xd6\xb4\x46"s, "xz", "xz -dk x"},
    {"BZh91AY&SY\x9a\x01\x02\0\0"s, "bzip2", "bunzip2"},
    {"\x28\xb5\x2f\xfd\x04\x58\x61\0\0"s, "zstd", "zstd -d x"},
    {"\x1f\x8b\x08\0\0\0\0\0"s, "gzipped", "gunzip"},
    {tar_head(), "tar archive", "tar -xf x"},
    {"7z\xbc\xaf\x27\x1c\0\x04"s, "7-Zip", "7z x x"},
    {"\x89HDF\r\n\x1a\n\0\0\0\0"s, "HDF5", ""},
    {"\x08\0\0\0\0\0\0\0{\"a\":{}}xxxx"s, "safetensors", "import"},
    {"SQLite format 3\0\x10\0"s, "SQLite", "sqlite3"},
    {"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0"s, "office", "CSV"},
    {"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF", "pdftotext"},
    {"<!-- saved from url -->\n <!-- 2 -->\n<html>"s, "HTML page", "resolve"},
    {"(lp0\nVtext\np1\na."s, "pickle", "save_pretrained"},
    {"(dp1\nS'a'\n."s, "pickle", "save_pretrained"},
    {"ccopy_reg\n_reconstructor\np0\n(c__main__"s, "pickle", "save_pretrained"},
    {"\n<!DOCTYPE html>\n<html lang=\"en\">", "HTML page", "resolve"},
    {"\xef\xbb\xbf<HTML><head>", "HTML page", ""},
    {"<?xml version=\"1.0\"?>\n<a/>", "XML", ""},
    {"Entry not found", "download failed", "again"},
    {"\xff\xfe{\0\"\0p\0\"\0"s, "UTF-16", "iconv -f UTF-16LE -t UTF-8 x > x.utf8"},
    {"\xfe\xff\0{\0\"\0p\0\""s, "UTF-16", "UTF-16BE"},
    {"{\0\"\0p\0r\0o\0m\0p\0t\0\"\0"s, "UTF-16", "UTF-16LE"},
    {"\0{\0\"\0p\0r\0o\0m\0p\0t\0\""s, "UTF-16", "UTF-16BE"},
    {"\xff\xfe\0\0{\0\0\0"s, "UTF-32", "UTF-32LE"},
    {"{\0\0\0\"\0\0\0p\0\0\0q\0\0\0"s, "UTF-32", "UTF-32LE"},
    {"caf\xe9 au lait\n", "another encoding", "iconv -f WINDOWS-1252"},
    {"\x89PNG\r\n\x1a\n\0\0"s, "image", ""},
    {"\xff\xd8\xff\xe0\0\x10JFIF"s, "image", ""},
    {"\x7f" + "ELF\x02\x01\x01\0"s, "program", ""},
    {"", "empty", "again"}};

TEST(FileKind, NamesWhatIsHandedOverByMistakeAndWhatHelps) {
  for (const Shown& file : foreign_files) {
    const FileLook look = look_at(file.bytes, file.bytes.size(), "x");
    EXPECT_THAT(look.is, HasSubstr(file.is)) << testing::PrintToString(file.bytes);
    EXPECT_THAT(look.advice, HasSubstr(file.advice)) << file.is;
    EXPECT_TRUE(look.kind != FileKind::text && look.kind != FileKind::json && look.kind != FileKind::unknown) << file.is;
  }
}

// The file begins with the length of its header: 640 bytes look like a pickle of protocol 2, 35,615 like gzip.
TEST(FileKind, SafetensorsAreKnownWhateverTheLengthOfTheirHeader) {
  for (std::uint64_t header = 2; header < 70000; ++header) {
    std::string file(reinterpret_cast<const char*>(&header), 8);
    file += "{\"__metadata__\": {}}";
    ASSERT_EQ(look_at(file, header + 100, "x").kind, FileKind::safetensors) << header;
  }
}

TEST(FileKind, TakesTextForTextWhateverItsFirstLettersAre) {
  for (const std::string text :
       {"ORCs are no elves\n", "PAR1 is a road\n", "GGUF is a format", "BZh", "Rar! it said", "a,b\n1,2\n", "# a deck\n[run]\n",
        "\xef\xbb\xbfgood\t3\n", "\u00e9t\u00e9", "[run]\nfolder = x\n", "\x1b[1mbold\x1b[0m\n"})
    EXPECT_EQ(look_at(text, text.size(), "x").kind, FileKind::text) << text;
  for (const std::string text : {"{\"a\": 1}", " [\n {\"a\": 1}]", "[]", "\xef\xbb\xbf{\"a\":1}", "{}"})
    EXPECT_EQ(look_at(text, text.size(), "x").kind, FileKind::json) << text;
  const std::string long_text = std::string(file_head_bytes - 1, 'a') + "\u00e9 and more";  // the look ends inside a character
  EXPECT_EQ(look_at(long_text.substr(0, file_head_bytes), long_text.size(), "x").kind, FileKind::text);
  EXPECT_EQ(look_at("\x01\x02\x03\0\x05"s, 5, "x").kind, FileKind::unknown);
}

/// Every reader of this room says what the file is.
TEST(FileKind, IsAskedForByDecksTextFilesAndHdf5) {
  const std::string path = testing::TempDir() + "file_kind_test.json";
  const auto message = [](auto&& work) -> std::string {
    try {
      work();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input_error);
      return error.what();
    }
    return "no error";
  };
  for (const Shown& file : foreign_files) {
    std::ofstream(path, std::ios::binary) << file.bytes;
    OptionTable table;
    EXPECT_THAT(message([&] { Hdf5File::open(path); }), HasSubstr(file.is == "HDF5" ? "HDF5" : file.is));
    if (file.is == "empty") continue;
    EXPECT_THAT(message([&] { table.read_deck_file(path); }), HasSubstr(file.is));
    if (file.is == "another encoding") continue;
    EXPECT_THAT(message([&] { read_file(path); }), HasSubstr(file.is));
  }
}

}  // namespace
}  // namespace collimate
