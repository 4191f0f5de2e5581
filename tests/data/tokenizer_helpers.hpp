#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "collimate/data/tokenizer.hpp"
#include "support/refusal.hpp"

namespace collimate {

using test::refusal;
using Ids = std::vector<std::int32_t>;

/// A folder that is gone after the test.
class TokenizerFolder {
 public:
  TokenizerFolder() : path_(std::filesystem::path(testing::TempDir()) / unique_name()) { std::filesystem::create_directories(path_); }
  ~TokenizerFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }
  std::string write(const std::string& name, const std::string& content) const {
    write_file((path_ / name).string(), content);
    return (path_ / name).string();
  }
  void remove(const std::string& name) const { std::filesystem::remove(path_ / name); }

 private:
  static std::string unique_name() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    return "collimate_" + std::string(test->test_suite_name()) + "_" + test->name() + "_" + std::to_string(std::random_device{}());
  }
  std::filesystem::path path_;
};

/// The ids of a text all of whose special tokens count.
inline Ids encode_special(const Tokenizer& tokenizer, std::string_view text) {
  const TextRange all[] = {{0, text.size()}};
  return tokenizer.encode(text, all);
}

/// What training on one text gives.
inline BpeTraining trained(std::string_view text, std::int64_t vocabulary) {
  BpeTrainer trainer;
  trainer.add(text);
  return trainer.train(vocabulary);
}

/// Random bytes, some of them runs of letters, spaces, multi-byte characters and broken ones.
inline std::string random_text(std::mt19937& random, int parts) {
  static const std::vector<std::string> pool = {
      " ", "  ", "\n", "\r\n", "a", "ab", "the", " the", "'s", "'ll", "1", "23", "!", "...", "é", "汉", "😀", "\xc2\xa0",
      "\xff", "\xe6\xb1", "\xed\xa0\x80", std::string(1, '\0'), "<|endoftext|>"};
  std::string text;
  for (int i = 0; i < parts; ++i) {
    if (random() % 4 == 0) text += static_cast<char>(random() % 256);
    else text += pool[random() % pool.size()];
  }
  return text;
}

}  // namespace collimate
