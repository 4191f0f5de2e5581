#include "collimate/base/hdf5_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/checksum.hpp"
#include "collimate/base/error.hpp"
#include "support/refusal.hpp"

namespace collimate {
namespace {

namespace fs = std::filesystem;
using test::refusal;
using testing::AllOf;
using testing::HasSubstr;

/// A fresh folder for each test.
class Hdf5 : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              fmt::format("collimate-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(), ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

template <class T>
std::span<const T> view(const std::vector<T>& values) {
  return values;
}

template <class T>
std::vector<T> counting(std::int64_t n, T first = 0) {
  std::vector<T> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

template <class T>
void round_trip(const std::string& path) {
  const auto values = counting<T>(1000, 3);
  Hdf5File out = Hdf5File::create(path);
  out.write("/a/b/fixed", view(values));
  out.create_dataset("/a/grows", dtype_of<T>(), {0, 10}, 7);
  out.append("/a/grows", view(values).first(330));
  out.append("/a/grows", view(values).subspan(330));
  out.close();
  const Hdf5File in = Hdf5File::open(path);
  EXPECT_EQ(in.read<T>("/a/b/fixed"), values);
  EXPECT_EQ(in.read<T>("/a/grows"), values);
  EXPECT_EQ(in.info("/a/grows").shape, (Shape{100, 10}));
  EXPECT_EQ(in.info("/a/grows").dtype, dtype_of<T>());
  EXPECT_TRUE(in.info("/a/grows").extendible);
  EXPECT_FALSE(in.info("/a/b/fixed").extendible);
  std::vector<T> part(20);
  in.read("/a/grows", 33, std::span<T>(part));
  EXPECT_EQ(part, (std::vector<T>(values.begin() + 330, values.begin() + 350)));
}

TEST_F(Hdf5, EveryTypeComesBack) {
  round_trip<float>(at("f32"));
  round_trip<double>(at("f64"));
  round_trip<std::int32_t>(at("i32"));
  round_trip<std::int64_t>(at("i64"));
  round_trip<std::uint64_t>(at("u64"));
  std::vector<std::uint8_t> bytes = {0, 255, 7};
  Hdf5File out = Hdf5File::create(at("u8"));
  out.write("/bytes", view(bytes));
  out.close();
  EXPECT_EQ(Hdf5File::open(at("u8")).read<std::uint8_t>("/bytes"), bytes);
}

TEST_F(Hdf5, TextsAttributesAndLists) {
  const std::string json = "{\"name\": \"d\u00e9j\u00e0\"}", longer(200000, 'x');
  Hdf5File out = Hdf5File::create(at("t.h5"));
  out.write_text("/meta/json", json);
  out.write_text("/meta/long", longer);
  out.write_text("/meta/empty", "");
  out.set_attribute("/", "kind", "supervised");
  out.set_attribute("/meta", "count", std::int64_t{-5});
  out.write("/zebra/foal", view(counting<float>(0)));
  out.write("/apple", view(counting<float>(0)));
  EXPECT_THROW(out.set_attribute("/", "long", longer), Error);
  out.close();
  const Hdf5File in = Hdf5File::open(at("t.h5"));
  EXPECT_EQ(in.read_text("/meta/json"), json);
  EXPECT_EQ(in.read_text("/meta/long"), longer);
  EXPECT_EQ(in.read_text("/meta/empty"), "");
  EXPECT_EQ(in.text_attribute("/", "kind"), "supervised");
  EXPECT_EQ(in.integer_attribute("/meta", "count"), -5);
  EXPECT_EQ(in.children(), (std::vector<std::string>{"apple", "meta", "zebra"}));
  EXPECT_EQ(in.children("/meta"), (std::vector<std::string>{"empty", "json", "long"}));
  EXPECT_TRUE(in.exists("/") && in.exists("/meta/json") && in.is_group("/meta") && !in.is_group("/apple"));
  EXPECT_FALSE(in.exists("/meta/none") || in.exists("/none/deeper") || in.has_attribute("/", "none"));
  EXPECT_EQ(in.read<float>("/apple").size(), 0u);
}

TEST_F(Hdf5, WritesRangesInAnyOrderAndManyDatasets) {
  const auto values = counting<std::int32_t>(12);
  Hdf5File out = Hdf5File::create(at("r.h5"));
  out.create_dataset("/x", DType::i32, {4, 3});
  out.write("/x", 2, view(values).last(6));
  out.write("/x", 0, view(values).first(6));
  for (int i = 0; i < 150; ++i) out.write(fmt::format("/many/{:03}", i), view(values).first(i % 5));
  out.close();
  const Hdf5File in = Hdf5File::open(at("r.h5"));
  EXPECT_EQ(in.read<std::int32_t>("/x"), values);
  for (int i = 0; i < 150; ++i) EXPECT_EQ(in.read<std::int32_t>(fmt::format("/many/{:03}", i)).size(), static_cast<std::size_t>(i % 5));
}

TEST_F(Hdf5, EqualContentGivesEqualBytes) {
  for (const char* name : {"one", "two"}) {
    Hdf5File out = Hdf5File::create(at(name));
    out.write("/g/x", view(counting<double>(100)));
    out.write_text("/t", "text");
    out.set_attribute("/", "a", "b");
    out.close();
    if (name[0] == 'o') ::usleep(1100000);  // a time stamp would have the next second
  }
  EXPECT_EQ(read_file(at("one")), read_file(at("two")));
}

TEST_F(Hdf5, MisuseIsASentence) {
  Hdf5File out = Hdf5File::create(at("m.h5"));
  out.create_dataset("/x", DType::f32, {4, 3});
  const auto floats = counting<float>(12);
  EXPECT_THAT(refusal([&] { out.write("/x", 3, view(floats).first(6)); }), AllOf(HasSubstr("m.h5"), HasSubstr("/x"), HasSubstr("[4, 3]")));
  EXPECT_THAT(refusal([&] { out.write("/x", 0, view(floats).first(4)); }), HasSubstr("do not fit"));
  EXPECT_THAT(refusal([&] { out.read<double>("/x"); }), HasSubstr("holds f32, not f64"));
  EXPECT_THAT(refusal([&] { out.append("/x", view(floats)); }), HasSubstr("fixed size"));
  EXPECT_THAT(refusal([&] { out.create_dataset("/x", DType::f32, {1}); }), AllOf(HasSubstr("create '/x'"), HasSubstr("already exists")));
  EXPECT_THAT(refusal([&] { out.create_dataset("/b", DType::bf16, {1}); }), HasSubstr("the dataset '/b' cannot hold bf16"));
  EXPECT_THAT(refusal([&] { out.read<float>("/y"); }), HasSubstr("no dataset '/y'"));
  EXPECT_THAT(refusal([&] { out.read_text("/x"); }), HasSubstr("not a text"));
  EXPECT_THAT(refusal([&] { out.text_attribute("/x", "k"); }), HasSubstr("no attribute 'k'"));
  EXPECT_THAT(refusal([&] { out.children("/x"); }), HasSubstr("no group '/x'"));
}

TEST_F(Hdf5, UnreadableFilesAreNamed) {
  EXPECT_THAT(refusal([&] { Hdf5File::open(at("none")); }), AllOf(HasSubstr("none"), HasSubstr("does not exist")));
  EXPECT_THAT(refusal([&] { Hdf5File::open(folder_.string()); }), HasSubstr("is a folder"));
  std::ofstream(at("empty"));
  EXPECT_THAT(refusal([&] { Hdf5File::open(at("empty")); }), HasSubstr("is empty"));
  std::ofstream(at("text")) << std::string(5000, 'a');
  EXPECT_THAT(refusal([&] { Hdf5File::open(at("text")); }), HasSubstr("not an HDF5 file"));
  Hdf5File out = Hdf5File::create(at("cut"));
  out.write("/x", view(counting<double>(10000)));
  out.close();
  fs::copy(at("cut"), at("broken"));
  fs::resize_file(at("cut"), 40000);
  const std::string remedy = ": copy it again or make it again";
  EXPECT_EQ(refusal([&] { Hdf5File::open(at("cut")); }), fmt::format("the HDF5 file '{}' was cut short{}", at("cut"), remedy));
  // Wherever a byte of the library's own is wrong: no words of the library.
  const std::string whole = read_file(at("broken"));
  int refused = 0;
  for (std::size_t at_byte = 8; at_byte < 2000; ++at_byte) {
    std::string bytes = whole;
    bytes[at_byte] ^= 0x5a;
    std::ofstream(at("broken"), std::ios::binary) << bytes;
    const std::string said = refusal([&] {
      const Hdf5File in = Hdf5File::open(at("broken"));
      if (in.exists("/x") && in.info("/x").shape == Shape{10000}) in.read<double>("/x");
    });
    if (said == "accepted" || said.find("Collimate does not use") != std::string::npos || said.find(" axes; ") != std::string::npos)
      continue;
    ++refused;
    ASSERT_THAT(said, AllOf(HasSubstr("the HDF5 file '" + at("broken") + "'"), HasSubstr(remedy))) << at_byte;
  }
  EXPECT_GT(refused, 50);
  EXPECT_THAT(refusal([&] { Hdf5File::create(at("no/such/folder")); }), HasSubstr("no/such/folder"));
}

/// Lets files grow to so many bytes only: the operating system then refuses to write as it does on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(Hdf5, AFullDiskIsReported) {
  const auto values = counting<double>(100000);
  const FileLimit limit(100000);
  const std::string fixed = refusal([&] {
    Hdf5File out = Hdf5File::create(at("full.h5"));
    out.write("/x", view(values));
    out.close();
  });
  EXPECT_THAT(fixed, AllOf(HasSubstr("full.h5"), HasSubstr("free space")));
  const std::string chunked = refusal([&] {
    Hdf5File out = Hdf5File::create(at("chunked.h5"));
    out.create_dataset("/x", DType::f64, {0}, 1000);
    for (int i = 0; i < 20; ++i) out.append("/x", view(values).first(1500));
    out.close();
  });
  EXPECT_THAT(chunked, AllOf(HasSubstr("chunked.h5"), HasSubstr("free space")));
}

TEST_F(Hdf5, AnAtomicFileAppearsWholeOrNotAtAll) {
  {
    const AtomicFile abandoned(at("deep/a"));
    std::ofstream(abandoned.temporary()) << "half";
    EXPECT_TRUE(fs::exists(abandoned.temporary()));
  }
  EXPECT_TRUE(fs::is_empty(at("deep")));
  write_file(at("deep/a"), "first");
  write_file(at("deep/a"), "second");
  EXPECT_EQ(read_file(at("deep/a")), "second");
  {
    const FileLimit limit(10);
    EXPECT_THAT(refusal([&] { write_file(at("deep/a"), std::string(100, 'x')); }), AllOf(HasSubstr("deep/a"), HasSubstr("free space")));
  }
  EXPECT_EQ(read_file(at("deep/a")), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(at("deep")), {}), 1);
  EXPECT_THAT(refusal([&] { AtomicFile(at("deep")); }), HasSubstr("is a folder"));
  EXPECT_THAT(refusal([&] { AtomicFile(at("deep/a/b")); }), HasSubstr("cannot"));
  EXPECT_THAT(refusal([&] { read_file(at("none")); }), HasSubstr("none"));
}

TEST_F(Hdf5, WhatAKilledWriterLeftGoesWhenTheFileIsWrittenAgain) {
  const std::vector<std::string> others = {".data.h5.0123456789abcdef-1.part", ".data.h5.77.part"};  // of other machines, of older versions
  for (const std::string& name : others) std::ofstream(at(name)) << "x";
  for (const char* name : {"data.h5", "data.h5.2"})
    if (const pid_t child = fork(); child == 0) {
      const AtomicFile file(at(name));
      _exit(0);
    } else {
      waitpid(child, nullptr, 0);
    }
  const auto files = [&] { return std::distance(fs::directory_iterator(folder_), {}); };
  EXPECT_EQ(files(), 4);
  const AtomicFile living(at("data.h5"));
  EXPECT_EQ(files(), 4);  // its own, no longer the one that was left
  write_file(at("data.h5.2"), "x");
  EXPECT_EQ(files(), 4);
  { const AtomicFile unfinished(at("data.h5.2")); }
  EXPECT_TRUE(fs::exists(living.temporary()));
  for (const std::string& name : others) EXPECT_TRUE(fs::exists(at(name))) << name;
}

TEST_F(Hdf5, APartialFolderIsRemovedOnceItsProcessIsGone) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const PartialFolder folder(at("not/yet"));
    std::ofstream(folder.path() + "/half") << "x";
    const auto size = static_cast<ssize_t>(folder.path().size());
    while (write(ready[1], folder.path().data(), static_cast<std::size_t>(size)) == size) pause();
    _exit(1);
  }
  std::string left(4096, '\0');
  left.resize(static_cast<std::size_t>(std::max<ssize_t>(0, read(ready[0], left.data(), left.size()))));
  ASSERT_EQ(fs::path(left).parent_path(), folder_);
  EXPECT_TRUE(PartialFolder::is_one(fs::path(left).filename().string()));
  std::vector<std::string> unknown = {at(".collimate-0"), at(".collimate-0123456789abcdef-1"), left + "x"};  // of an older version, of another machine
  for (const std::string& name : unknown) fs::create_directory(name);
  { const PartialFolder beside(at("not/yet")); }
  EXPECT_TRUE(fs::exists(left + "/half")) << "its process lives";
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  { const PartialFolder next(at("not/yet")); }
  EXPECT_FALSE(fs::exists(left));
  EXPECT_THAT(PartialFolder::remove_left(at("not/yet")), testing::UnorderedElementsAreArray(unknown));
  for (const std::string& name : unknown) EXPECT_TRUE(fs::exists(name)) << name;
  close(ready[0]), close(ready[1]);
}

// Values that the author of XXH64 and its bindings publish.
TEST(ChecksumTest, GivesThePublishedValues) {
  EXPECT_EQ(checksum(""), 0xEF46DB3751D8E999);
  EXPECT_EQ(checksum("a"), 0xD24EC4F1A98C6E5B);
  EXPECT_EQ(checksum("abc"), 0x44BC2CF5AD770999);
  EXPECT_EQ(checksum("xxhash"), 0x32DD38952C4BC720);
  EXPECT_EQ(checksum("xxhash", 6, 20141025), 0xB559B98D844E0635);
  EXPECT_EQ(checksum("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1);
  EXPECT_EQ(checksum_text(0xABC), "0000000000000abc");
}

TEST(ChecksumTest, DoesNotSeeHowTheStreamWasCut) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 37 + i / 7);
  const std::uint64_t whole = checksum(text);
  for (std::size_t piece = 1; piece < 80; ++piece) {
    Checksum sum;
    for (std::size_t i = 0; i < text.size(); i += piece) sum.add(std::string_view(text).substr(i, piece));
    ASSERT_EQ(sum.value(), whole) << piece;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] ^= 1;
    ASSERT_NE(checksum(damaged), whole) << i;
  }
}

}  // namespace
}  // namespace collimate
