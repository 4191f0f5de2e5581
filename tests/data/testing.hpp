#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "collimate/base/atomic_file.hpp"
#include "collimate/base/error.hpp"
#include "support/refusal.hpp"

namespace collimate {

using test::refusal;
/// A fresh folder for each test, removed behind it.
class InFolder : public testing::Test {
 protected:
  InFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() / fmt::format("collimate-{}-{}-{}", test->test_suite_name(), test->name(), ::getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~InFolder() override { std::filesystem::remove_all(folder_); }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }
  std::string file(const std::string& name, std::string_view text) const {
    write_file(at(name), text);
    return at(name);
  }
  std::filesystem::path folder_;
};

/// A path below the folder of real files, or empty where COLLIMATE_TEST_DATA is unset.
inline std::string test_data(const std::string& name) {
  const char* folder = std::getenv("COLLIMATE_TEST_DATA");
  return folder ? (std::filesystem::path(folder) / name).string() : "";
}

}  // namespace collimate
