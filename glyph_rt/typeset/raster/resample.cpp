#include "resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "rows.h"

namespace glyph_rt {

namespace {

static_assert(Plane::kSlack >= 2 * kChunk);

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

}  // namespace

// Output i is the sum over k of its weights [k] times input [first + k].
struct Resampler::Taps {
  struct Output {
    int32_t first;
    int32_t count;
    int32_t weights;  // where its own start
  };
  std::vector<Output> outputs;
  std::vector<int32_t> weights;
  int32_t most = 0;  // taps of any output
  std::vector<Chunk> chunks;
  std::vector<ChunkWeights> chunk_weights;

  Taps(int32_t in, int32_t out) {
    const double scale = static_cast<double>(in) / out, stretch = std::max(scale, 1.0), support = 2.0 * stretch;
    std::vector<double> real;
    for (int32_t i = 0; i < out; ++i) {
      const double center = (i + 0.5) * scale;
      const int32_t low = std::max(0, static_cast<int32_t>(center - support + 0.5));
      const int32_t high = std::min(in, static_cast<int32_t>(center + support + 0.5));
      outputs.push_back({low, high - low, static_cast<int32_t>(weights.size())});
      most = std::max(most, high - low);
      real.assign(high - low, 0);
      double sum = 0;
      for (int32_t k = 0; k < high - low; ++k) sum += real[k] = bicubic((k + low - center + 0.5) / stretch);
      for (const double weight : real) {
        const double fixed = weight / sum * (1 << kWeightBits);
        weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
      }
    }
    for (int32_t at = 0; at < out; at += kChunk) add_chunk(at, std::min(at + kChunk, out));
  }

 private:
  // In a chunk inputs advance in step with outputs, whatever the scale: where that is not so, there are more taps, some of weight 0.
  void add_chunk(int32_t at, int32_t end) {
    int32_t from = outputs[at].first, to = from;
    for (int32_t i = at; i < end; ++i) from = std::min(from, outputs[i].first - (i - at));
    for (int32_t i = at; i < end; ++i) to = std::max(to, outputs[i].first - (i - at) + outputs[i].count);
    chunks.push_back({at, from, to - from, static_cast<int32_t>(chunk_weights.size())});
    chunk_weights.resize(chunk_weights.size() + static_cast<size_t>(to - from), ChunkWeights{});
    ChunkWeights* const own = chunk_weights.data() + chunks.back().weights;
    for (int32_t i = at; i < end; ++i)
      for (int32_t k = 0; k < outputs[i].count; ++k) own[outputs[i].first - (i - at) - from + k].of[i - at] = weights[outputs[i].weights + k];
  }
};

std::shared_ptr<const Resampler::Taps> Resampler::taps_for(int32_t in, int32_t out) {
  static std::mutex mutex;
  static std::map<std::pair<int32_t, int32_t>, std::shared_ptr<const Taps>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (known.size() > 256) known.clear();  // cropped pages come in at most a hundred widths; bounded all the same
  auto& taps = known[{in, out}];
  if (!taps) taps = std::make_shared<const Taps>(in, out);
  return taps;
}

void Resampler::start(const Plane& in, int32_t width, int32_t height, int32_t to_width, int32_t to_height) {
  in_ = &in;
  across_ = taps_for(width, to_width);
  down_ = taps_for(height, to_height);
  int32_t slots = 1;
  while (slots < down_->most) slots *= 2;
  mask_ = slots - 1;
  ring_.shape(to_width, slots);
  out_.shape(to_width, 1);
  inked_.assign(slots, 0);
  filled_ = 0;
}

const uint8_t* Resampler::row(int32_t y) {
  const Taps::Output& output = down_->outputs[y];
  filled_ = std::max(filled_, output.first);
  for (; filled_ < output.first + output.count; ++filled_) {
    const int32_t slot = filled_ & mask_;
    inked_[slot] = loops_->across(ring_.row(slot), in_->row(filled_), across_->chunks.data(), across_->chunks.size(), across_->chunk_weights.data());
  }
  rows_.clear();
  bool any = false;
  for (int32_t k = 0; k < output.count; ++k) {
    const int32_t slot = (output.first + k) & mask_;
    rows_.push_back(ring_.row(slot));
    any = any || inked_[slot] != 0;
  }
  if (any) loops_->down(out_.row(0), rows_.data(), down_->weights.data() + output.weights, output.count, ring_.width);
  else std::memset(out_.row(0), 0, ring_.width);
  return out_.row(0);
}

}  // namespace glyph_rt
