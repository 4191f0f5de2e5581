// token_ids TOKENIZER FILE: for each line of FILE, a JSON string, one of {"ids", "text"}: its ids, where all special tokens count, and the
// text that they decode to. token_ids TOKENIZER FILE speed: the whole file as one text, in MB/s.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "collimate/base/atomic_file.hpp"
#include "collimate/data/tokenizer.hpp"

using namespace collimate;

namespace {

void encode_lines(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream lines(path);
  for (std::string line; std::getline(lines, line);) {
    const std::string text = nlohmann::json::parse(line);
    const TextRange all[] = {{0, text.size()}};
    const auto ids = tokenizer.encode(text, all);
    std::cout << nlohmann::json{{"ids", ids}, {"text", tokenizer.decode(ids, true)}}.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)
              << "\n";
  }
}

void measure(const Tokenizer& tokenizer, const std::string& path) {
  const std::string text = read_file(path);
  const auto start = std::chrono::steady_clock::now();
  const std::size_t count = tokenizer.encode(text).size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print("{} tokens, {:.2f} MB/s\n", count, static_cast<double>(text.size()) / seconds.count() * 1e-6);
}

}  // namespace

int main(int count, char** words) {
  try {
    const auto tokenizer = load_tokenizer(words[1]);
    if (count > 3) measure(*tokenizer, words[2]);
    else encode_lines(*tokenizer, words[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
