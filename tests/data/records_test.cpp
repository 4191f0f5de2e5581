#include "collimate/data/records.hpp"

#include <zlib.h>

#include "collimate/base/utf8.hpp"
#include "data/delimiter.hpp"
#include "data/testing.hpp"

namespace collimate {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<Record> all(const std::string& path, RecordOptions options = {}) {
  RecordReader reader(path, options);
  std::vector<Record> records;
  while (auto record = reader.next()) records.push_back(*record);
  return records;
}

std::vector<std::string> column(const std::vector<Record>& records, const std::string& name) {
  std::vector<std::string> values;
  for (const Record& record : records) values.push_back(record.text(name));
  return values;
}

using Records = InFolder;

std::string gzipped(const std::string& path, const std::string& text) {
  gzFile out = gzopen(path.c_str(), "wb");
  gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
  gzclose(out);
  return path;
}

TEST_F(Records, JsonLines) {
  const auto records = all(file("a.jsonl", "{\"p\": \"x\\ny\", \"n\": 1.5, \"none\": null}\r\n\n{\"p\": \"\u00e9\"}"));
  EXPECT_THAT(column(records, "p"), ElementsAre("x\ny", "\u00e9"));
  EXPECT_EQ(records[0].number("n"), 1.5);
  EXPECT_FALSE(records[0].has("none"));
  EXPECT_EQ(records[1].line, 3);
  EXPECT_EQ(records[0].text("n"), "1.5");
  EXPECT_THAT(refusal([&] { records[1].text("q"); }), AllOf(HasSubstr("'q' is missing"), HasSubstr("has p")));
  EXPECT_THAT(refusal([&] { records[1].number("p"); }), HasSubstr("must be a number"));
}

TEST_F(Records, JsonListIsCutAtItsElements) {
  const std::string text = "[ {\"p\": \"a ] } \\\" [ {\", \"l\": [{\"q\": [1, 2]}]} ,\n\n {\"p\": \"b\\\\\"}\n]\n";
  const auto records = all(file("a.json", text));
  EXPECT_THAT(column(records, "p"), ElementsAre("a ] } \" [ {", "b\\"));
  EXPECT_EQ(records[0].fields.at("l").text, "[{\"q\": [1, 2]}]");
  EXPECT_EQ(records[1].line, 3);
}

TEST_F(Records, CsvAsRfc4180Says) {
  const auto records = all(file("a.csv",
                                "\xEF\xBB\xBF"
                                "act,\"the prompt\"\r\nx,\"a, \"\"b\"\"\r\nc\"\r\n,\"\"\n\nlast,row"));
  EXPECT_THAT(column(records, "act"), ElementsAre("x", "", "last"));
  EXPECT_THAT(column(records, "the prompt"), ElementsAre("a, \"b\"\r\nc", "", "row"));
  EXPECT_EQ(records[1].line, 4);
  EXPECT_EQ(records[2].line, 6);
}

/// Cases 26 and 27, and other tables as programs write them.
TEST_F(Records, TablesWithOtherDelimitersAndColumnsWithoutNames) {
  const auto prompts = [&](const std::string& name, std::string_view text, char delimiter = 0) {
    const auto records = all(file(name, text), {.delimiter = delimiter});
    EXPECT_EQ(column(records, "response").size(), 2u);
    return column(records, "prompt");
  };
  EXPECT_THAT(prompts("tab.tsv", "prompt\tresponse\na\tb\nc\td\n"), ElementsAre("a", "c"));
  EXPECT_THAT(prompts("tab.tsv", "prompt\tresponse\na, x; y\tb\n\"c\td\"\td\n"), ElementsAre("a, x; y", "c\td"));
  EXPECT_THAT(prompts("tab.csv", "prompt\tresponse\na,1\tb\nc\td\n"), ElementsAre("a,1", "c"));
  EXPECT_THAT(prompts("semi.csv", "prompt;response\na,1;b\nc;\"d;e\"\n"), ElementsAre("a,1", "c"));
  EXPECT_THAT(prompts("pipe.csv", "prompt|response\r\na|b\r\nc|d\r\n"), ElementsAre("a", "c"));
  EXPECT_THAT(prompts("comma.csv", "prompt,response\na;1,b;2\nc;3,d;4\n"), ElementsAre("a;1", "c;3"));
  EXPECT_THAT(prompts("return.csv", "prompt,response\na\rb,c\r\nd,e\n"), ElementsAre("a\rb", "d")) << "a carriage return alone ends no row";
  EXPECT_THAT(prompts("hash.csv", "prompt#response\na#b\nc#d\n", '#'), ElementsAre("a", "c"));
  const auto index = all(file("index.csv", ",prompt,response\n0,a,b\n1,c,d\n"));
  EXPECT_THAT(column(index, "prompt"), ElementsAre("a", "c"));
  EXPECT_THAT(index[0].unused(), testing::Contains("(column 1, without a name)"));
  EXPECT_THAT(column(all(file("quote.csv", "p,q\n5\" pipe,x\n\"a\"\"b\",\"\"\n")), "p"), ElementsAre("5\" pipe", "a\"b"));
  EXPECT_THAT(refusal([&] { all(file("table", "prompt\tresponse\na\tb\nc\td\n")); }), AllOf(HasSubstr("looks like a table"), HasSubstr("--file-format csv")));
  EXPECT_THAT(column(all(file("prose.txt", "One, two;\nthree, four;\n")), "text"), ElementsAre("One, two;\nthree, four;"));
  EXPECT_EQ(delimiter_of("a.csv", "a;b;c,d\n1;2;3,4\n"), ',') << "a comma goes before others, however many columns they make";
  std::string head = "id;a, b;c\n1;2\n";
  for (int row = 0; row < 8; ++row) head += "1;2;3\n";
  EXPECT_EQ(delimiter_of("a.csv", head), ';') << "nine rows of ten agree";
  EXPECT_EQ(delimiter_of("a.csv", head + "1\n"), ',') << "nine of eleven do not";
  EXPECT_EQ(delimiter_named("tab"), '\t');
  EXPECT_EQ(delimiter_named("#"), '#');
  EXPECT_THAT(refusal([] { delimiter_named("tabs"); }), HasSubstr("comma, tab, semicolon, pipe"));
}

/// A number is the text that stands in the file.
TEST_F(Records, NumbersKeepTheirCharacters) {
  const Record record = all(file("a.jsonl", R"({"a": 51.0, "b": 1e5, "c": -0, "d": 0.10, "e": true, "f": 12345678901234567890123, "g": [1.50, {"x": "]"}]})")).at(0);
  const std::pair<const char*, const char*> texts[] = {{"a", "51.0"}, {"b", "1e5"}, {"c", "-0"}, {"d", "0.10"}, {"e", "true"}, {"f", "12345678901234567890123"}};
  for (const auto& [name, text] : texts) EXPECT_EQ(record.text(name), text);
  EXPECT_THAT(refusal([&] { record.text("g"); }), HasSubstr("'g' must be a text, not [1.50"));
}

/// Case 24 and its kin: the look at the first bytes comes before any parser, and no option to skip helps.
TEST_F(Records, FilesOfAnotherKindAreNamed) {
  const RecordOptions skip{.skip_bad = true};
  const auto says = [&](const std::string& name, const std::string& bytes) { return refusal([&] { all(file(name, bytes), skip); }); };
  EXPECT_THAT(says("y.parquet", std::string("PAR1\x15\x04\x00\x80\xff", 9)), AllOf(HasSubstr("Parquet"), HasSubstr("to_json"), Not(HasSubstr("skip-bad"))));
  EXPECT_THAT(says("y.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(says("y.csv", std::string("PK\x03\x04\x14\0\0\0", 8)), HasSubstr("unzip"));
  EXPECT_THAT(says("y.txt", "<!DOCTYPE html><html></html>"), AllOf(HasSubstr("HTML"), HasSubstr("--file-format text")));
  EXPECT_THAT(says("lines.txt", "{\"prompt\": \"a\"}\n"), AllOf(HasSubstr("begins as JSON does"), HasSubstr("--file-format")));
  EXPECT_THAT(says("wide.jsonl", std::string("\xff\xfe{\0\"\0a\0", 8)), HasSubstr("iconv -f UTF-16LE"));
  EXPECT_THAT(refusal([&] { all(gzipped(at("t.jsonl.gz"), "PK\x03\x04" + std::string(20, '\0'))); }), AllOf(HasSubstr("gzipped"), HasSubstr("zip archive")));
  EXPECT_THAT(column(all(file("page.txt", "<html>x"), {.format = FileFormat::text}), "text"), ElementsAre("<html>x"));
}

TEST_F(Records, PlainTextByParagraphLineAndFile) {
  const std::string path = file("a.txt", "\none\ntwo\n\n \nthree\n");
  EXPECT_THAT(column(all(path), "text"), ElementsAre("one\ntwo", "three"));
  EXPECT_EQ(all(path)[1].line, 6);
  EXPECT_THAT(column(all(path, {.text_unit = TextUnit::line}), "text"), ElementsAre("one", "two", "three"));
  EXPECT_THAT(column(all(path, {.text_unit = TextUnit::file}), "text"), ElementsAre("\none\ntwo\n\n \nthree\n"));
}

TEST_F(Records, GzippedAndDetected) {
  EXPECT_THAT(column(all(gzipped(at("a.jsonl.gz"), "{\"p\": \"z\"}\n")), "p"), ElementsAre("z"));
  EXPECT_THAT(column(all(gzipped(at("a.csv.gz"), "p\nz\n")), "p"), ElementsAre("z"));
  EXPECT_THAT(column(all(file("b.json", "{\"p\": \"lines\"}\n{\"p\": \"too\"}\n")), "p"), ElementsAre("lines", "too"));
  EXPECT_THAT(column(all(file("list", " [{\"p\": \"a\"}]")), "p"), ElementsAre("a"));
  EXPECT_THAT(column(all(file("words", "plain words")), "text"), ElementsAre("plain words"));
  EXPECT_THAT(column(all(file("forced.txt", "{\"p\": \"a\"}"), {.format = FileFormat::jsonl}), "p"), ElementsAre("a"));
  std::string noise;
  for (int i = 0; i < 200000; ++i) noise += static_cast<char>('a' + (i * 2654435761u >> 13) % 26);
  const std::string path = gzipped(at("cut.txt.gz"), noise);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_THAT(refusal([&] { all(path); }), AllOf(HasSubstr("cut.txt.gz"), HasSubstr("cut off")));
}

TEST_F(Records, BadInputIsNamedWithFileLineAndRemedy) {
  const auto complaint = [&](const std::string& name, std::string_view text) { return refusal([&] { all(file(name, text)); }); };
  EXPECT_THAT(complaint("a.jsonl", "{\"p\": 1}\n{\"p\": \"tru"),
              AllOf(HasSubstr("a.jsonl', line 2"), HasSubstr("cut off"), HasSubstr("--skip-bad")));
  EXPECT_THAT(complaint("b.jsonl", "{\"p\": \"\\d\"}\n"), AllOf(HasSubstr("line 1"), HasSubstr("byte"), HasSubstr("backslash")));
  EXPECT_THAT(complaint("h.jsonl", "{\"p\": truth}\n"), AllOf(HasSubstr("line 1"), HasSubstr("near '{\"p\": truth}'"), Not(HasSubstr("syntax"))));
  EXPECT_THAT(complaint("i.jsonl", "{\"p\": \"a\tb\"}\n"), AllOf(HasSubstr("line 1"), HasSubstr("control character")));
  EXPECT_THAT(complaint("j.jsonl.gz", "{\"p\": \"a\"}\n"), AllOf(HasSubstr("j.jsonl.gz"), HasSubstr("is not gzipped")));
  EXPECT_THAT(complaint("k.jsonl.gz", "\x1f\x8b\x08 not really"), AllOf(HasSubstr("k.jsonl.gz"), HasSubstr("the gzipped file is")));
  EXPECT_THAT(complaint("l.jsonl", "{\"p\": \"a:b\", \"q\": {\"p\": 1}}\n{\"p\": 1, \"q\": 2, \"p\": 1}\n"),
              AllOf(HasSubstr("l.jsonl', line 2"), HasSubstr("the key 'p' stands twice")));
  EXPECT_THAT(complaint("m.json", "[{\"p\": 1},\n{\"t\": [{\"from\": \"a\"}, {\"from\": 1, \"from\": 1}]}]"),
              AllOf(HasSubstr("m.json', line 2"), HasSubstr("the key 'from' stands twice")));
  EXPECT_THAT(complaint("c.jsonl", "{}\n[1]\n"), AllOf(HasSubstr("line 2"), HasSubstr("object is expected, not array")));
  EXPECT_THAT(complaint("d.jsonl", "{}\n{\"p\": \"a\xff\"}\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("byte 9"), HasSubstr("UTF-8"), HasSubstr("iconv")));
  EXPECT_THAT(complaint("e.jsonl", ""), AllOf(HasSubstr("e.jsonl"), HasSubstr("is empty")));
  EXPECT_THAT(complaint("f.jsonl", "{\"p\": " + std::string(100000, '[')), HasSubstr("nested"));
  EXPECT_THAT(complaint("a.json", "[{\"p\": 1},\n{\"p\": 2}"), AllOf(HasSubstr("a.json', line 2"), HasSubstr("cut off")));
  EXPECT_THAT(complaint("b.json", "[{\"p\": 1},\n{\"p\": [2}"), AllOf(HasSubstr("line 2"), HasSubstr("cut off")));
  EXPECT_THAT(complaint("c.json", "[{\"p\": 1}\n{\"p\": 2}]"), AllOf(HasSubstr("line 2"), HasSubstr("comma")));
  EXPECT_THAT(complaint("d.json", "[1]"), HasSubstr("object is expected, not number"));
  EXPECT_THAT(complaint("e.json", "[]"), HasSubstr("is empty"));
  EXPECT_THAT(complaint("f.json", "[{}] tail"), HasSubstr("behind the end"));
  EXPECT_THAT(complaint("h.jsonl", "{\"p\": 1}\n{\"p\": 1e999}\n"), AllOf(HasSubstr("line 2"), HasSubstr("beyond the range")));
  EXPECT_THAT(complaint("g.json", "{\n \"p\": 1}"), HasSubstr("cut off"));
  EXPECT_THAT(complaint("h.json", "[{\"p\": 1},]"), HasSubstr("accepted"));
  EXPECT_THAT(complaint("a.csv", "a,b\n1,2\n3\n"), AllOf(HasSubstr("line 3"), HasSubstr("1 column(s)"), HasSubstr("2 (a, b)")));
  EXPECT_THAT(complaint("b.csv", "a,b\n1,\"2\n3"), AllOf(HasSubstr("line 2"), HasSubstr("never closed")));
  EXPECT_THAT(complaint("c.csv", "a,b\n1,\"2\"x\n"), AllOf(HasSubstr("line 2"), HasSubstr("behind a closing")));
  EXPECT_THAT(complaint("e.csv", "a,a\n1,2\n"), HasSubstr("'a' twice"));
  EXPECT_THAT(complaint("f.csv", "a,b\n"), HasSubstr("is empty"));
  EXPECT_THAT(complaint("g.csv", ""), HasSubstr("is empty"));
  EXPECT_THAT(complaint("h.csv", "a\n\"x\n\xc3(\"\n"), AllOf(HasSubstr("line 3"), HasSubstr("UTF-8")));
  EXPECT_THAT(complaint("a.txt", "good\nbad \xed\xa0\x80\n"), AllOf(HasSubstr("line 2"), HasSubstr("byte 5")));
  EXPECT_THAT(complaint("b.txt", " \n\n"), HasSubstr("is empty"));
  EXPECT_THAT(refusal([&] { all(at("none")); }), HasSubstr("does not exist"));
  EXPECT_THAT(refusal([&] { all(folder_.string()); }), HasSubstr("is a folder"));
  EXPECT_THAT(refusal([] { file_format_named("xml"); }), AllOf(HasSubstr("xml"), HasSubstr("auto, jsonl, json, csv, text")));
}

TEST_F(Records, BadOnesAreSkippedAndCounted) {
  const RecordOptions skip{.skip_bad = true};
  const auto left = [&](const std::string& path, std::int64_t bad) {
    RecordReader reader(path, skip);
    std::vector<std::string> values;
    while (auto record = reader.next()) values.push_back(record->text("p"));
    EXPECT_EQ(reader.bad(), bad) << path;
    EXPECT_EQ(reader.complaints().size(), static_cast<std::size_t>(bad));
    EXPECT_EQ(reader.records(), static_cast<std::int64_t>(values.size()));
    return values;
  };
  EXPECT_THAT(left(file("a.jsonl", "{\"p\": \"a\"}\n{\"p\n{\"p\": \"\xff\"}\n{\"p\": \"b\"}\n{"), 3), ElementsAre("a", "b"));
  EXPECT_THAT(left(file("a.json", "[{\"p\": \"a\"}, {\"p\": x}, {\"p\": \"b\"}, {\"p\""), 2), ElementsAre("a", "b"));
  EXPECT_THAT(left(file("a.csv", "p,q\na,1\nb\n\"c\"x,2\nd,4\ne,\"5"), 3), ElementsAre("a", "d"));
  EXPECT_THAT(refusal([&] { all(file("b.jsonl", "{\n{\n"), skip); }), AllOf(HasSubstr("no good record"), HasSubstr("line 1")));
}

TEST_F(Records, MemoryStaysBounded) {
  const RecordOptions small{.longest = 1000};
  const std::string words(2000, 'x');
  EXPECT_THAT(refusal([&] { all(file("a.jsonl", words), small); }), AllOf(HasSubstr("line 1"), HasSubstr("longer than 1000 bytes")));
  EXPECT_THAT(refusal([&] { all(file("a.json", "[{\"" + words), small); }), HasSubstr("longer than"));
  EXPECT_THAT(refusal([&] { all(file("a.csv", "p\n" + words), small); }), HasSubstr("longer than"));
  EXPECT_THAT(refusal([&] { all(file("b.csv", "p\n\"" + words), small); }), HasSubstr("longer than"));
  EXPECT_THAT(refusal([&] { all(file("a.txt", words), small); }), HasSubstr("longer than"));
}

TEST_F(Records, TurnsOfADialogue) {
  const std::string text = R"({"c": [{"from": "human", "value": "hi"}, {"role": "assistant", "content": "yo"}],)"
                           R"( "one": {"from": "gpt", "value": "x"}, "bad": [{"from": "gpt"}], "words": "t"})";
  const Record record = all(file("a.jsonl", text)).at(0);
  EXPECT_THAT(record.turns("c"), ElementsAre(Turn{"human", "hi"}, Turn{"assistant", "yo"}));
  EXPECT_THAT(record.turns("one"), ElementsAre(Turn{"assistant", "x"}));
  EXPECT_THAT(refusal([&] { record.turns("bad"); }), AllOf(HasSubstr("line 1"), HasSubstr("message 1 of 'bad'")));
  EXPECT_THAT(refusal([&] { record.turns("words"); }), HasSubstr("list of messages"));
}

TEST(Utf8, FindsTheFirstByteThatIsWrong) {
  EXPECT_EQ(find_invalid_utf8("a\u00e9\u20ac\U0001F600"), std::string_view::npos);
  const std::pair<std::string, std::size_t> wrong[] = {{"a\x80", 1},
                                                       {"\xc3", 0},
                                                       {"\xc0\xaf", 0},
                                                       {"\xe0\x80\x80", 0},
                                                       {"\xed\xa0\x80", 0},
                                                       {"\xf4\x90\x80\x80", 0},
                                                       {"\xf5\x80\x80\x80", 0},
                                                       {"ab\xe2\x82", 2},
                                                       {"\xf0\x8f\xbf\xbf", 0}};
  for (const auto& [text, at] : wrong) EXPECT_EQ(find_invalid_utf8(text), at) << testing::PrintToString(text);
}

TEST(RealRecords, InstructWildHasTwoBadLines) {
  const std::string path = test_data("rlhf/instructwild_v2_user_2.jsonl");
  if (path.empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  EXPECT_THAT(refusal([&] { all(path); }), AllOf(HasSubstr("line 134"), HasSubstr("backslash")));
  RecordReader reader(path, {.skip_bad = true});
  while (reader.next()) {
  }
  EXPECT_EQ(reader.records(), 246);
  EXPECT_EQ(reader.bad(), 2);
  EXPECT_THAT(reader.complaints()[1], HasSubstr("line 168"));
}

TEST(RealRecords, CountsAreThoseOfTheirSources) {
  if (test_data("").empty()) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  EXPECT_EQ(all(test_data("rlhf/hh-harmless-base-test.jsonl.gz")).size(), 2312u);
  EXPECT_EQ(all(test_data("rlhf/awesome-chatgpt-prompts-2023-04.csv")).size(), 161u);
  EXPECT_EQ(all(test_data("rlhf/llamafactory_alpaca_en_demo.json")).size(), 999u);
  EXPECT_EQ(all(test_data("rlhf/gsm8k_test.jsonl")).size(), 1319u);
  const auto preference = all(test_data("rlhf/llamafactory_dpo_en_demo.json"));
  ASSERT_EQ(preference.size(), 300u);
  EXPECT_EQ(preference[0].turns("conversations").size(), 1u);
  EXPECT_EQ(preference[0].turns("chosen").at(0).role, "assistant");
  EXPECT_EQ(all(test_data("corpora/tinyshakespeare.txt"), {.text_unit = TextUnit::file})[0].text("text").size(), 1115394u);
}

}  // namespace
}  // namespace collimate
