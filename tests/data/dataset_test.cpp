#include "collimate/data/dataset.hpp"

#include <fstream>

#include "collimate/base/hdf5_file.hpp"
#include "collimate/base/random.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Random samples of every kind, also empty prompts, texts with any byte and groups of several pairs.
class Datasets : public InFolder {
 protected:
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(key_.below(n, draw_++)); }
  std::vector<std::int32_t> ids(std::int64_t least, std::int64_t most) {
    std::vector<std::int32_t> out(least + below(most - least + 1));
    for (auto& id : out) id = static_cast<std::int32_t>(below(257));
    return out;
  }
  std::string text(std::int64_t most) {
    std::string out(below(most + 1), ' ');
    for (char& c : out) c = static_cast<char>(below(256));
    return out;
  }
  SupervisedSample supervised(std::int64_t most = 40) {
    SupervisedSample sample{ids(2, most), {}, text(20), text(20)};
    for (std::size_t i = 0; i < sample.tokens.size(); ++i) sample.mask.push_back(i == 1 || below(2));
    return sample;
  }
  PreferenceGroup group() {
    PreferenceGroup out{ids(0, 9), text(9), {}};
    for (std::int64_t pairs = 1 + below(4); pairs > 0; --pairs)
      out.pairs.push_back({ids(1, 9), ids(1, 9), static_cast<double>(below(100)) / 7, text(9), text(9), text(4)});
    return out;
  }
  PromptSample prompt() { return {ids(1, 9), text(9), text(9)}; }
  DatasetWriter writer(const std::string& name, DatasetKind kind) const { return {at(name), kind, rules_, *tokenizer_}; }
  std::string supervised_file(const std::string& name, int samples) {
    DatasetWriter out = writer(name, DatasetKind::supervised);
    for (int i = 0; i < samples; ++i) out.add(supervised());
    out.finish();
    return at(name);
  }

  RandomKey key_{1, Purpose::evaluation};
  std::uint64_t draw_ = 0;
  Template rules_ = [] {
    Template rules;
    rules.prompt = "Q {prompt}";
    rules.max_prompt_tokens = 9;
    return rules;
  }();
  std::unique_ptr<Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(Datasets, SupervisedSamplesComeBack) {
  std::vector<SupervisedSample> samples;
  std::int64_t tokens = 0, targets = 0;
  DatasetWriter out = writer("s.h5", DatasetKind::supervised);
  for (int i = 0; i < 300; ++i) {
    out.add(samples.emplace_back(supervised()));
    tokens += static_cast<std::int64_t>(samples.back().tokens.size());
    targets += std::count(samples.back().mask.begin() + 1, samples.back().mask.end(), 1);
  }
  EXPECT_FALSE(std::filesystem::exists(at("s.h5")));
  out.finish();
  const Dataset in(at("s.h5"));
  EXPECT_EQ(in.kind(), DatasetKind::supervised);
  EXPECT_EQ(in.tokens(), tokens);
  EXPECT_EQ(in.targets(), targets);
  EXPECT_EQ(in.rules(), rules_);
  EXPECT_EQ(in.tokenizer(), tokenizer_->serialize());
  EXPECT_EQ(in.tokenizer_fingerprint(), tokenizer_->fingerprint());
  EXPECT_EQ(in.vocabulary(), tokenizer_->vocabulary());
  ASSERT_EQ(in.size(), 300);
  for (std::int64_t i = 299; i >= 0; --i) {
    ASSERT_EQ(in.supervised(i), samples[i]);
    ASSERT_EQ(in.rows(i), static_cast<std::int64_t>(samples[i].tokens.size()));
  }
}

TEST_F(Datasets, PreferenceGroupsAndPromptsComeBack) {
  std::vector<PreferenceGroup> groups;
  std::vector<PromptSample> prompts;
  DatasetWriter out = writer("g.h5", DatasetKind::preference), others = writer("p.h5", DatasetKind::prompts);
  for (int i = 0; i < 100; ++i) {
    out.add(groups.emplace_back(group()));
    others.add(prompts.emplace_back(prompt()));
  }
  out.finish();
  others.finish();
  const Dataset in(at("g.h5")), other(at("p.h5"));
  std::int64_t pairs = 0, rows = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    ASSERT_EQ(in.preference(i), groups[i]);
    ASSERT_EQ(in.rows(i), groups[i].rows());
    ASSERT_EQ(in.pairs(i), static_cast<std::int64_t>(groups[i].pairs.size()));
    ASSERT_EQ(other.prompt(i), prompts[i]);
    pairs += static_cast<std::int64_t>(groups[i].pairs.size());
    rows += groups[i].rows();
  }
  EXPECT_EQ(in.targets(), pairs);
  EXPECT_EQ(in.tokens(), rows);
  EXPECT_THAT(refusal([&] { in.check_kind(DatasetKind::prompts); }),
              AllOf(HasSubstr("g.h5"), HasSubstr("preference"), HasSubstr("prompts")));
}

TEST_F(Datasets, WritingNeedsBoundedMemory) {
  DatasetWriter out = writer("big.h5", DatasetKind::supervised);
  std::size_t most = 0;
  const SupervisedSample sample = supervised(5000);
  for (int i = 0; i < 1000; ++i) {
    out.add(sample);
    most = std::max(most, out.buffered_bytes());
  }
  EXPECT_GT(out.tokens() * 5, static_cast<std::int64_t>(DatasetWriter::buffer_limit));
  EXPECT_LE(most, DatasetWriter::buffer_limit);
  EXPECT_GT(most, 0u);
  out.finish();
  EXPECT_EQ(Dataset(at("big.h5")).supervised(999), sample);
}

TEST_F(Datasets, EqualInputGivesEqualFilesAndNothingIsLeftHalfWritten) {
  draw_ = 0;
  const std::string first = read_file(supervised_file("a.h5", 50));
  draw_ = 0;
  EXPECT_EQ(read_file(supervised_file("b.h5", 50)), first);
  std::filesystem::remove(at("a.h5"));
  std::filesystem::remove(at("b.h5"));
  {
    DatasetWriter out = writer("c.h5", DatasetKind::supervised);
    out.add(supervised());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

// Every byte of the file that is a value of a column: flipping one bit of it is found.
TEST_F(Datasets, ADamagedByteIsFound) {
  const std::string path = supervised_file("d.h5", 20);
  const std::string good = read_file(path);
  const std::string parts[] = {"/tokens/values", "/tokens/offsets", "/mask", "/prompt_text/values", "/response_text/offsets", "/tokenizer"};
  int found = 0;
  for (const std::string& part : parts) {
    const Hdf5File file = Hdf5File::open(path);
    const Hdf5Info info = file.info(part);
    std::string bytes(info.shape.count() * size_of(info.dtype), '\0');
    file.read_rows(part, info.dtype, 0, bytes.data(), info.shape.count());
    const std::string piece = bytes.substr(bytes.size() / 2, 24);
    const std::size_t at_byte = good.find(piece);
    ASSERT_NE(at_byte, std::string::npos) << part;
    std::string bad = good;
    bad[at_byte + 8] ^= 1;
    write_file(at("bad.h5"), bad);
    const std::string complaint = refusal([&] { Dataset(at("bad.h5")); });
    found += complaint.find("damaged") != std::string::npos && complaint.find("bad.h5") != std::string::npos;
    EXPECT_THAT(complaint, HasSubstr(part.substr(part == "/tokenizer", part.find('/', 1))));
  }
  EXPECT_EQ(found, 6);
}

TEST_F(Datasets, BadFilesAndSamplesAreSentences) {
  const std::string path = supervised_file("e.h5", 20);
  const Dataset in(path);
  EXPECT_THAT(refusal([&] { in.check_vocabulary(256); }),
              AllOf(HasSubstr("e.h5"), HasSubstr("vocabulary of 256"), HasSubstr("row "), HasSubstr("id 256")));
  Template other = rules_;
  other.prompt = "A {prompt}";
  EXPECT_THAT(refusal([&] { in.check_rules(other, in.tokenizer_fingerprint(), "the checkpoint 'c'"); }),
              AllOf(HasSubstr("e.h5"), HasSubstr("the checkpoint 'c'"), HasSubstr("A {prompt}")));
  EXPECT_THAT(refusal([&] { in.check_rules(rules_, 1, "the model 'm'"); }), HasSubstr("another tokenizer than the model 'm'"));
  EXPECT_EQ(refusal([&] { in.check_rules(rules_, in.tokenizer_fingerprint(), "x"); }), "accepted");
  write_file(at("cut.h5"), read_file(path).substr(0, std::filesystem::file_size(path) / 2));
  EXPECT_THAT(refusal([&] { Dataset(at("cut.h5")); }), AllOf(HasSubstr("cut.h5"), HasSubstr("cut short")));
  Hdf5File::create(at("other.h5")).close();
  EXPECT_THAT(refusal([&] { Dataset(at("other.h5")); }), HasSubstr("no dataset of Collimate"));

  DatasetWriter out = writer("f.h5", DatasetKind::supervised);
  EXPECT_THAT(refusal([&] { out.finish(); }), HasSubstr("no sample"));
  out.add(supervised());
  EXPECT_THAT(refusal([&] { out.add(SupervisedSample{{1, 257}, {0, 1}, "", ""}); }), AllOf(HasSubstr("sample 1"), HasSubstr("257")));
  EXPECT_THAT(refusal([&] { out.add(SupervisedSample{{1, 2}, {1, 0}, "", ""}); }), HasSubstr("nothing to learn"));
  EXPECT_THAT(refusal([&] { out.add(SupervisedSample{{1, 2}, {1}, "", ""}); }), HasSubstr("mask"));
  EXPECT_THAT(refusal([&] { out.add(PromptSample{{1}, "", ""}); }), HasSubstr("prompts sample"));
  DatasetWriter pairs = writer("g.h5", DatasetKind::preference);
  EXPECT_THAT(refusal([&] { pairs.add(PreferenceGroup{}); }), HasSubstr("no pair"));
  EXPECT_THAT(refusal([&] { pairs.add(PreferenceGroup{{1}, "", {PreferencePair{{1}, {}, 0, "", "", ""}}}); }), HasSubstr("empty answer"));
}

}  // namespace
}  // namespace collimate
