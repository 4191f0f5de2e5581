#include "collimate/io/safetensors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "collimate/model/hugging_face.hpp"
#include "io/scratch.hpp"

namespace collimate {
namespace {

using test::bytes_of;
using test::put;
using test::refusal;
using test::Scratch;

std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

/// The value of an IEEE binary16 by its definition.
double half_value(unsigned bits) {
  const int sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(Safetensors, ReadsWhatItWritesBitForBit) {
  const Scratch scratch;
  const std::vector<SafetensorsSpec> specs{{"b", {2, 3}}, {"a.weight", {}}, {"empty", {0, 4}}, {"c", {1, 2, 1, 2}}};
  const auto value = [](std::size_t tensor, std::size_t i) { return static_cast<float>(tensor * 100 + i) / 7; };
  const auto fill = [&](std::size_t tensor, std::span<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(tensor, i);
  };
  write_safetensors(scratch / "m.safetensors", specs, fill);
  const SafetensorsReader reader(scratch / "m.safetensors");
  ASSERT_EQ(reader.tensors().size(), 4u);
  EXPECT_EQ(reader.tensors()[0].name, "a.weight");
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  for (std::size_t tensor = 0; tensor < specs.size(); ++tensor) {
    const std::int64_t count = specs[tensor].shape.count();
    for (std::int64_t begin = 0; begin <= count; ++begin) {
      std::vector<float> part(static_cast<std::size_t>(count - begin));
      reader.read(specs[tensor].name, begin, count - begin, part.data());
      for (std::size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], value(tensor, static_cast<std::size_t>(begin) + i));
    }
  }
  float out;
  EXPECT_SAYS(refusal([&] { reader.read("d", 0, 1, &out); }), "holds no tensor d");
  EXPECT_THROW(reader.read("b", 6, 1, &out), Error);
  EXPECT_THROW(reader.read("b", -1, 1, &out), Error);
  const std::string bytes = bytes_of(scratch / "m.safetensors");
  EXPECT_EQ(bytes.size() % 4, 0u);
  EXPECT_EQ(bytes[0] % 8, 0);
  write_safetensors(scratch / "again.safetensors", specs, fill);
  EXPECT_EQ(bytes, bytes_of(scratch / "again.safetensors"));
}

TEST(Safetensors, WritesTheBytesOfTheOriginalLibrary) {
  const Scratch scratch;
  write_safetensors(scratch / "m.safetensors", {{"b", {2}}, {"a", {1, 1}}}, [](std::size_t tensor, std::span<float> values) {
    std::fill(values.begin(), values.end(), tensor == 0 ? 1.0f : 2.0f);
  });
  // safetensors.torch.save_file({"b": ones(2), "a": full((1, 1), 2.)}, metadata={"format": "pt"}) of safetensors 0.5
  const std::string header = R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})";
  std::string padded = header;
  while (padded.size() % 8) padded += ' ';
  EXPECT_EQ(bytes_of(scratch / "m.safetensors"), with_header(padded, std::string("\0\0\0\x40\0\0\x80\x3f\0\0\x80\x3f", 12)));
}

TEST(Safetensors, ConvertsHalfAndBrainFloats) {
  const Scratch scratch;
  std::string data(4 * 65536, '\0');
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    std::memcpy(data.data() + 2 * bits, &word, 2);
    std::memcpy(data.data() + 131072 + 2 * bits, &word, 2);
  }
  put(scratch / "m.safetensors", with_header(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]},)"
                                             R"("b":{"dtype":"BF16","shape":[256,256],"data_offsets":[131072,262144]}})", data));
  const SafetensorsReader reader(scratch / "m.safetensors");
  std::vector<float> half(65536), brain(65536);
  reader.read("h", 0, 65536, half.data());
  reader.read("b", 0, 1, brain.data());
  reader.read("b", 1, 65535, brain.data() + 1);
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const double expected = half_value(bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(half[bits])) << bits;
    } else {
      EXPECT_EQ(half[bits], expected) << bits;
      EXPECT_EQ(std::signbit(half[bits]), bits >> 15 == 1) << bits;
    }
    std::uint32_t word;
    std::memcpy(&word, &brain[bits], 4);
    EXPECT_EQ(word, bits << 16);
  }
}

/// The neighbours of x among the values of a 16-bit type, found by looking at all of them: the nearer one, of two equally near the even one.
std::uint16_t nearest(double x, double (*value)(unsigned)) {
  unsigned best = 0;
  double distance = std::numeric_limits<double>::infinity();
  for (unsigned bits = 0; bits < 0x8000; ++bits) {
    const double candidate = value(bits);
    if (!std::isfinite(candidate)) continue;
    const double d = std::abs(candidate - std::abs(x));
    if (d < distance || (d == distance && bits % 2 == 0)) distance = d, best = bits;
  }
  return static_cast<std::uint16_t>(best | (std::signbit(x) ? 0x8000u : 0u));
}

double brain_value(unsigned bits) {
  const std::uint32_t word = bits << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

TEST(Safetensors, RoundsToNearestEven) {
  const Scratch scratch;
  std::vector<float> numbers{0.0f, -0.0f, 1.0f, 65504.0f, 65519.0f, -65519.0f, 6.0e-8f, 2.98e-8f, 0x1p-25f, 0x1.8p-24f, 0x1p-14f, 6.1e-5f, 1.00048828125f,
                             1.00146484375f, 1.00390625f, 1.01171875f, 0x1.ffcp-15f, 3.0e38f, 1e-30f, 0.1f, -0.3f};
  for (int i = 0; i < 60; ++i) numbers.push_back(static_cast<float>(std::sin(i) * std::pow(10.0, i % 9 - 5)));
  const auto count = static_cast<std::int64_t>(numbers.size());
  for (const std::string type : {"F16", "BF16"}) {
    std::vector<float> given = numbers;
    if (type == "F16")
      for (float& x : given) x = std::abs(x) > 65519 ? 1.0f : x;
    write_safetensors(scratch / "m.safetensors", {{"a", {count}, type}}, [&](std::size_t, std::span<float> values) { std::ranges::copy(given, values.begin()); });
    const SafetensorsReader reader(scratch / "m.safetensors");
    EXPECT_EQ(reader.tensors()[0].dtype, type);
    std::vector<float> read(numbers.size());
    reader.read("a", 0, count, read.data());
    for (std::size_t i = 0; i < given.size(); ++i) {
      const auto value = type == "F16" ? half_value : brain_value;
      EXPECT_EQ(read[i], value(nearest(given[i], value))) << type << " " << given[i];
      EXPECT_EQ(std::signbit(read[i]), std::signbit(given[i]));
      EXPECT_EQ(read[i], stored_as(type, given[i]));
    }
  }
  const auto write_one = [&](float x, const std::string& type) {
    return refusal([&] { write_safetensors(scratch / "m.safetensors", {{"a", {1}, type}}, [&](std::size_t, auto values) { values[0] = x; }); });
  };
  EXPECT_SAYS(write_one(65520.0f, "F16"), "element 0 of the tensor a is 65520, which is too large for F16");
  EXPECT_SAYS(write_one(3.4e38f, "BF16"), "too large for BF16");
}

TEST(Safetensors, RefusesDamagedFilesInASentence) {
  const Scratch scratch;
  const std::string path = scratch / "bad.safetensors";
  const auto expect = [&](const std::string& bytes, const std::string& words) {
    put(path, bytes);
    const std::string answer = refusal([&] { SafetensorsReader reader(path); });
    EXPECT_SAYS(answer, words);
    EXPECT_SAYS(answer, path);
  };
  const auto tensor = [](const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return with_header("{" + tensor("x", dtype, shape, offsets) + "}", std::string(8, 'd'));
  };
  expect("", "is empty");
  expect("1234567", "is a text file, where a safetensors file is expected");
  expect(std::string("\x02\0\0", 3), "too few");
  expect("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer");
  expect(std::string(8, '\0'), "header of 0 bytes");
  expect(std::string(8, '\xff') + "{}", "header of 18446744073709551615 bytes");
  expect(with_header("{}", "").substr(0, 9), "it was cut off");
  expect(std::string("\x10\0\0\0\0\0\0\0{}", 10), "it was cut off");
  expect(with_header("[]", ""), "has no JSON header");
  expect(with_header("{\"x\":", ""), "is not valid JSON");
  expect(with_header("{\"x\": 3}", ""), "describes the tensor x by 3");
  expect(one("F32", "[2]", "[0]"), "describes the tensor x by");
  expect(one("F31", "[2]", "[0,8]"), "unknown type F31");
  expect(one("F32", "[3]", "[0,8]"), "needs 12 bytes");
  expect(one("F32", "[1]", "[0,8]"), "needs 4 bytes");
  expect(one("F32", "[-2]", "[0,8]"), "is not a possible one");
  expect(one("F32", "[2.0]", "[0,8]"), "is not a possible one");
  expect(one("F32", "[4611686018427387904,4]", "[0,8]"), "is not a possible one");
  expect(one("F32", "[3037000500,3037000500,3]", "[0,8]"), "is not a possible one");
  expect(one("F32", "[1,1,1,1,2]", "[0,8]"), "has 5 axes");
  expect(one("F32", "[2]", "[8,0]"), "data_offsets are [8,0]");
  expect(one("F32", "[2]", "[-8,0]"), "has the data_offsets");
  expect(one("F32", "[2]", "[8,16]"), "ends at byte 16 of the data, but the file has only 8");
  expect(one("F32", "[1]", "[4,8]"), "4 bytes before the tensor x");
  expect(one("F32", "[1]", "[0,4]"), "4 bytes after its last tensor");
  expect(with_header("{" + tensor("x", "F32", "[2]", "[0,8]") + "," + tensor("y", "F32", "[1]", "[4,8]") + "}", std::string(8, 'd')),
         "overlaps");
  expect(with_header("{" + tensor("x", "F32", "[1]", "[0,4]") + "," + tensor("x", "F32", "[1]", "[4,8]") + "}", std::string(8, 'd')),
         "names \"x\" twice");
  expect(with_header("{\"__metadata__\":{\"a\":1}}", ""), "which is not a text");
  expect(with_header("{\"__metadata__\":[]}", ""), "not an object");
  EXPECT_SAYS(refusal([&] { SafetensorsReader reader(scratch / "none.safetensors"); }), "does not exist");
  put(scratch / "pytorch_model.bin", "");
  EXPECT_SAYS(refusal([&] { SafetensorsReader reader(scratch / "."); }), "Python pickles");
  EXPECT_SAYS(refusal([&] { SafetensorsReader reader(scratch / "."); }), "s.save_file({k: v.contiguous().clone() for f in glob.glob('");

  put(path, with_header("{" + tensor("x", "I64", "[1]", "[0,8]") + "}", std::string(8, 'd')));
  float out;
  EXPECT_SAYS(refusal([&] { SafetensorsReader(path).read("x", 0, 1, &out); }), "is of type I64");
}

TEST(Safetensors, AFileThatShrinksAfterOpeningIsAnError) {
  const Scratch scratch;
  write_safetensors(scratch / "m", {{"x", {1000}}}, [](auto, std::span<float>) {});
  const SafetensorsReader reader(scratch / "m");
  std::filesystem::resize_file(scratch / "m", 2000);
  std::vector<float> out(1000);
  EXPECT_SAYS(refusal([&] { reader.read("x", 0, 1000, out.data()); }), "was cut off");
}

TEST(Safetensors, AFailedExportLeavesTheOldFile) {
  const Scratch scratch;
  put(scratch / "m", "old");
  EXPECT_THROW(write_safetensors(scratch / "m", {{"x", {1}}}, [](auto, std::span<float>) { fail("no values"); }), Error);
  EXPECT_EQ(bytes_of(scratch / "m"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch / "."), {}), 1);
}

TEST(Safetensors, ShardsAndTheirIndex) {
  const Scratch scratch;
  const std::string index = scratch / "model.safetensors.index.json";
  const std::vector<SafetensorsSpec> specs{{"a", {10}}, {"b", {10}}, {"c", {10}}};
  const auto fill = [](std::size_t tensor, std::span<float> values) {
    std::fill(values.begin(), values.end(), static_cast<float>(tensor));
  };
  write_safetensors_folder(scratch / ".", specs, fill);
  EXPECT_TRUE(std::filesystem::exists(scratch / "model.safetensors"));
  write_safetensors_folder(scratch / ".", specs, fill, 80);
  EXPECT_FALSE(std::filesystem::exists(scratch / "model.safetensors"));
  EXPECT_SAYS(bytes_of(index), "\"total_size\": 120");
  const SafetensorsReader reader(scratch / ".");
  ASSERT_EQ(reader.tensors().size(), 3u);
  float out = 0;
  reader.read("c", 9, 1, &out);
  EXPECT_EQ(out, 2);

  const std::string good = bytes_of(index), second = "model-00002-of-00002.safetensors";
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    put(index, text);
    const std::string answer = refusal([&] { SafetensorsReader again(scratch / "."); });
    put(index, good);
    return answer;
  };
  EXPECT_SAYS(with("\"c\": \"" + second, "\"c\": \"../" + second), "not a file name of the same folder");
  EXPECT_SAYS(with("\"c\"", "\"d\""), "does not list the tensor c");
  EXPECT_SAYS(with("\"b\": \"model-00001-of-00002.safetensors\",", ""), "does not list the tensor b");
  EXPECT_SAYS(with("\"c\": ", "\"d\": \"" + second + "\", \"c\": "), "says that the tensor d lies in");
  EXPECT_SAYS(with("weight_map", "weights"), "has no weight_map");
  std::filesystem::copy(scratch / "model-00001-of-00002.safetensors", scratch / second, std::filesystem::copy_options::overwrite_existing);
  EXPECT_SAYS(refusal([&] { SafetensorsReader again(scratch / "."); }), second);
  std::filesystem::remove(scratch / second);
  EXPECT_SAYS(refusal([&] { SafetensorsReader again(scratch / "."); }), second + "' does not exist");
}

/// Import and export as the program does them: every parameter of the model through the mapping.
std::map<std::string, std::vector<float>> import_model(const std::string& folder, ModelConfig& config) {
  config = config_from_hugging_face(bytes_of(folder + "/config.json"), folder + "/config.json");
  const SafetensorsReader reader(folder);
  std::vector<std::pair<std::string, Shape>> found;
  for (const auto& entry : reader.tensors()) found.emplace_back(entry.name, entry.shape);
  const auto wanted = hugging_face_tensors(config);
  const auto matches = match_hugging_face(wanted, found, reader.path()).places;
  std::map<std::string, std::vector<float>> model;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    std::vector<float> stored(static_cast<std::size_t>(wanted[i].shape.count()));
    reader.read(found[matches[i]].first, 0, wanted[i].shape.count(), stored.data());
    for (std::size_t part = 0; part < wanted[i].parts.size(); ++part) {
      auto& values = model[wanted[i].parts[part]];
      values.resize(static_cast<std::size_t>(wanted[i].part_shape().count()));
      unpack(wanted[i], static_cast<int>(part), stored, values);
    }
  }
  return model;
}

void export_model(const std::string& folder, const ModelConfig& config, const std::map<std::string, std::vector<float>>& model) {
  const auto wanted = hugging_face_tensors(config);
  std::vector<SafetensorsSpec> specs;
  for (const auto& tensor : wanted) specs.push_back({tensor.name, tensor.shape});
  std::filesystem::create_directory(folder);
  put(folder + "/config.json", config_to_hugging_face(config, 1, 2));
  write_safetensors_folder(folder, specs, [&](std::size_t i, std::span<float> values) {
    for (std::size_t part = 0; part < wanted[i].parts.size(); ++part)
      pack(wanted[i], static_cast<int>(part), model.at(wanted[i].parts[part]), values);
  });
}

TEST(Safetensors, RealModelsComeInAndGoOutBitForBit) {
  const char* data = std::getenv("COLLIMATE_TEST_DATA");
  if (!data) GTEST_SKIP() << "COLLIMATE_TEST_DATA is not set";
  for (const char* name : {"stories260K", "babyllama105", "gpt-nano-sort"}) {
    const Scratch scratch;
    const std::string source = std::string(data) + "/models/" + name;
    ModelConfig config, again;
    const auto model = import_model(source, config);
    std::int64_t count = 0;
    for (const auto& [parameter, values] : model) count += std::ssize(values);
    EXPECT_EQ(count, config.parameters()) << name;
    export_model(scratch / "out", config, model);
    EXPECT_EQ(import_model(scratch / "out", again), model) << name;
    EXPECT_EQ(again, config) << name;
    export_model(scratch / "twice", config, model);
    EXPECT_EQ(bytes_of(scratch / "out/model.safetensors"), bytes_of(scratch / "twice/model.safetensors"));
    const SafetensorsReader before(source), after(scratch / "out");
    ASSERT_EQ(before.tensors().size(), after.tensors().size()) << name;
    for (const auto& entry : before.tensors()) {
      std::vector<float> a(static_cast<std::size_t>(entry.shape.count())), b(a.size());
      before.read(entry.name, 0, std::ssize(a), a.data());
      after.read(entry.name, 0, std::ssize(b), b.data());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), 4 * a.size()), 0) << name << " " << entry.name;
    }
  }
}

}  // namespace
}  // namespace collimate
