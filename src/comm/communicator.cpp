#include "collimate/comm/communicator.hpp"

namespace collimate {

Part part_of(std::int64_t n, int rank, int ranks) {
  const auto cut = [&](std::int64_t r) { return static_cast<std::int64_t>(static_cast<__int128>(n) * r / ranks); };
  return {cut(rank), cut(rank + 1) - cut(rank)};
}

void Communicator::all_gather(Tensor all, Tensor mine, Stream& stream) {
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(size()), mine.count());
  all_gather(all, mine, counts, stream);
}

void Communicator::send(Tensor data, int to, Stream& stream) {
  const Message message{data, to};
  exchange({&message, 1}, {}, stream);
}

void Communicator::receive(Tensor data, int from, Stream& stream) {
  const Message message{data, from};
  exchange({}, {&message, 1}, stream);
}

std::vector<std::string> gather_all(Communicator& ranks, const std::string& mine) {
  std::vector<std::string> all;
  for (const auto& bytes : ranks.gather_bytes(std::as_bytes(std::span(mine))))
    all.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return all;
}

void broadcast(Communicator& ranks, std::string& text, int root) {
  std::vector<char> data(text.begin(), text.end());
  broadcast(ranks, data, root);
  text.assign(data.begin(), data.end());
}

void Communicator::check_may_speak(const char* call) const {
  ensure(!*silent_, "a step on whose success ranks agree must not communicate ({}): a rank in which it has failed would not answer", call);
}

void agree_on(Communicator& ranks, const std::function<void()>& step) {
  constexpr int fine = -1;
  int code = fine;
  std::string sentence;
  std::source_location place;
  const bool before = std::exchange(*ranks.silent_, true);
  try {
    step();
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
    sentence = error.what();
    place = error.place();
  } catch (const std::bad_alloc&) {
    code = static_cast<int>(ExitCode::does_not_fit);
    sentence = "the host has no more memory: use fewer ranks per node or a smaller model";
  } catch (const std::filesystem::filesystem_error& error) {
    const Error named = path_error(error);
    code = static_cast<int>(named.code());
    sentence = named.what();
  } catch (const std::exception& error) {
    code = static_cast<int>(ExitCode::failure);
    sentence = error.what();
  } catch (...) {
    code = static_cast<int>(ExitCode::failure);
    sentence = "an exception of unknown type";
  }
  *ranks.silent_ = before;
  const std::vector<int> codes = gather_all(ranks, code);
  for (int rank = 0; rank < ranks.size(); ++rank) {
    if (codes[rank] == fine) continue;
    broadcast(ranks, sentence, rank);
    throw AgreedError(static_cast<ExitCode>(codes[rank]), ranks.size() > 1 ? fmt::format("[rank {}] {}", rank, sentence) : sentence, place);
  }
}

}  // namespace collimate
