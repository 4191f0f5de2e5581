#pragma once
#include <string>
#include <vector>

namespace collimate {

// The commands of the program. Each takes the words behind its name, prints what it did and returns the exit code; errors are thrown.
// With --help it prints its options instead. All but run_command run on one process and need no mpirun.

/// The stages of a deck: supervised fine-tuning, reward model, PPO, evaluation. Starts MPI.
int run_command(const std::vector<std::string>& arguments);
/// Real files -> datasets in HDF5, or with --example the quickstart's data.
int prepare_command(const std::vector<std::string>& arguments);
/// A Hugging Face folder -> a checkpoint with one model, "policy".
int import_command(const std::vector<std::string>& arguments);
/// A model of a checkpoint -> a Hugging Face folder, which is read again and compared before it gets its name.
int export_command(const std::vector<std::string>& arguments);
/// Continues prompts with a model of a checkpoint.
int generate_command(const std::vector<std::string>& arguments);
/// A dialogue with a model that has a chat template.
int chat_command(const std::vector<std::string>& arguments);
/// Shows what is in a dataset, checkpoint, run folder or safetensors file.
int inspect_command(const std::vector<std::string>& arguments);
/// The first difference of two runs or of two checkpoints.
int diff_command(const std::vector<std::string>& arguments);

}  // namespace collimate
