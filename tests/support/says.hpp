#pragma once
#include <gtest/gtest.h>

#include "support/refusal.hpp"

#define EXPECT_SAYS(text, words) EXPECT_NE((text).find(words), std::string::npos) << (text)
