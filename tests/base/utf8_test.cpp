#include "collimate/base/utf8.hpp"

#include <gtest/gtest.h>

namespace collimate {
namespace {

TEST(Utf8, BytesThatAreNoCharacterAreReplaced) {
  EXPECT_EQ(as_utf8("a\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x99\x82"), "a\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x99\x82");
  const std::string mark = "\xef\xbf\xbd";
  EXPECT_EQ(as_utf8("6\x95\x95"), "6" + mark + mark);
  EXPECT_EQ(as_utf8("\xe6\xbc"), mark + mark);               // cut off
  EXPECT_EQ(as_utf8("\xe6\xbc" "a"), mark + mark + "a");
  EXPECT_EQ(as_utf8("\xc0\xaf"), mark + mark);               // too long a form
  EXPECT_EQ(as_utf8("\xed\xa0\x80"), mark + mark + mark);    // half of a pair
  EXPECT_EQ(as_utf8("\xf4\x90\x80\x80"), mark + mark + mark + mark);
  EXPECT_EQ(as_utf8(std::string_view("\0b", 2)), std::string("\0b", 2));
}

TEST(Utf8, WholeCharactersWaitForTheRest) {
  const std::string text = "a\xc3\xa9\xf0\x9f\x99\x82\xe6\xbc\xa2z";
  std::string put;
  for (std::size_t n = 0; n <= text.size(); ++n) {
    const std::string_view whole = whole_characters(std::string_view(text).substr(0, n));
    EXPECT_EQ(as_utf8(whole), whole);
    EXPECT_LE(whole.size() + 3, n + 3);
    EXPECT_GE(whole.size() + 3, n);
    put = whole;
  }
  EXPECT_EQ(put, text);
  EXPECT_EQ(whole_characters("a\x95\x95\x95\x95"), "a\x95\x95\x95\x95");  // nothing can complete these
  EXPECT_EQ(whole_characters("\xff"), "\xff");
  EXPECT_EQ(whole_characters(""), "");
}

}  // namespace
}  // namespace collimate
