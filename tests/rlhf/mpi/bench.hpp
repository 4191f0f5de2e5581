#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "collimate/data/prepare.hpp"
#include "collimate/rlhf/ppo_trainer.hpp"
#include "collimate/rlhf/reward_trainer.hpp"
#include "collimate/rlhf/stage_names.hpp"
#include "collimate/rlhf/supervised_trainer.hpp"
#include "comm/mpi_test.hpp"

namespace collimate::rlhf {

namespace fs = std::filesystem;

/// Datasets of a toy task (the answer repeats the prompt's letter) and a session to train on them.
struct Bench {
  World& world = *test_world();
  ProcessGrid grid{world, {1, world.size(), 1}};
  std::unique_ptr<Device> device = make_device();
  Log log{1};  // silent
  Options options;
  std::unique_ptr<RunFolder> folder;
  fs::path root;

  /// Its folder is this mpirun's own: two runs of the tests beside each other do not meet.
  explicit Bench(const std::string& name) : root(fs::temp_directory_path() / fmt::format("collimate-{}-{}", name, ::getppid())) {
    options.run.folder = (root / "run").string();
    options.model.layers = 2;
    options.model.width = 32;
    options.model.heads = 2;
    options.model.context = 48;
    options.machine.grain_tokens = 128;
    options.sft.data = file("sft.h5");
    options.sft.steps = 500;
    options.sft.optimizer.rate = 3e-3;
    options.sft.optimizer.warmup = 10;
    options.reward.data = options.reward.heldout = file("pairs.h5");
    options.reward.steps = 5;
    options.reward.optimizer.rate = 1e-3;
    options.ppo.prompts = options.evaluate.prompts = file("prompts.h5");
    options.ppo.iterations = 2;
    options.ppo.batch = 24;
    options.ppo.minibatch = 10;
    options.ppo.epochs = 2;
    options.ppo.max_new = 8;
    options.ppo.slots = 5;
    options.ppo.actor_optimizer.rate = 1e-3;
    agree_on(world.ranks(), [&] {
      if (world.rank() != 0) return;
      fs::remove_all(root);
      fs::create_directories(root);
      write_data();
      folder = std::make_unique<RunFolder>(options.run.folder, Existing::replace, learning_stages);
    });
  }
  ~Bench() {
    world.ranks().barrier();
    if (world.rank() == 0) fs::remove_all(root);
  }
  std::string file(const std::string& name) const { return (root / name).string(); }

  void write_data() const {
    std::ofstream sft(file("sft.jsonl")), pairs(file("pairs.jsonl")), prompts(file("prompts.jsonl"));
    for (int i = 0; i < 32; ++i) {
      const std::string prompt = fmt::format("say {}{}", static_cast<char>('a' + i % 8), static_cast<char>('a' + i / 8));
      const std::string answer = prompt.substr(4) + std::string(1 + i % 3, '!');
      sft << fmt::format("{{\"prompt\": \"{}\", \"response\": \"{}\"}}\n", prompt, answer);
      pairs << fmt::format("{{\"prompt\": \"{}\", \"chosen\": \"{}\", \"rejected\": \"no\"}}\n", prompt, answer);
      prompts << fmt::format("{{\"prompt\": \"{}\", \"answer\": \"{}\"}}\n", prompt, answer);
    }
    sft.close(), pairs.close(), prompts.close();
    prepare("sft", DatasetKind::supervised), prepare("pairs", DatasetKind::preference), prepare("prompts", DatasetKind::prompts);
  }
  /// Makes name.h5 of name.jsonl.
  void prepare(const std::string& name, DatasetKind kind) const {
    PrepareOptions how;
    how.inputs = {file(name + ".jsonl")};
    how.kind = kind;
    how.output = file(name + ".h5");
    collimate::prepare(how);
  }
  Session session() { return {.world = world, .grid = grid, .device = *device, .log = log, .options = options, .folder = folder.get()}; }
  std::vector<nlohmann::json> metrics(const std::string& name = "metrics") const {  // rank 0 only
    std::vector<nlohmann::json> lines;
    std::ifstream in(options.run.folder + "/" + name + ".jsonl");
    for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
};

}  // namespace collimate::rlhf
