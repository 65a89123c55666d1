// The decode step on random decoders, for AddressSanitizer and UBSan: every buffer is exactly as long as it may be. Loops are held to
// real numbers, rows to what they are alone, and every allocation is let fail.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "decoder.h"

using namespace glyph_rt;

namespace {

std::mt19937 random_bits;
long current_round = 0;
long allocations_left = -1;  // the one after fails; negative: none does

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_bits); }

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed in round %ld: %s\n", current_round, what);
  std::exit(1);
}

std::vector<float> random_floats(int64_t count, float spread = 1) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> floats(count);
  for (float& x : floats) x = normal(random_bits);
  return floats;
}

std::vector<Half> halves_of(std::vector<float>& floats) {
  std::vector<Half> halves;
  for (float& x : floats) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits &= 0xFFFF0000U;
    std::memcpy(&x, &bits, sizeof bits);
    halves.push_back(static_cast<Half>(bits >> 16));
  }
  return halves;
}

bool near(double found, double wanted, double size) { return std::fabs(found - wanted) <= 1e-5 * (1 + size); }

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// -- the loops, of every instruction set

void check_product(const Loops& loops) {
  const int64_t rows = draw(1, 9), in = draw(1, 70), out = draw(1, 20), stride = out + draw(0, 3);
  const auto x = random_floats(rows * in), bias = random_floats(out);
  auto w = random_floats(out * in);
  const auto halves = halves_of(w);
  const float* added = draw(0, 1) ? bias.data() : nullptr;
  std::vector<float> y(rows * stride - (stride - out)), of_halves = y;
  loops.product(y.data(), stride, x.data(), rows, w.data(), added, in, out);
  loops.product_of_halves(of_halves.data(), stride, x.data(), rows, halves.data(), added, in, out);
  check(same(y, of_halves), "halves are the floats they stand for");
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> alone(out);
    loops.product(alone.data(), out, x.data() + r * in, 1, w.data(), added, in, out);
    check(std::memcmp(alone.data(), y.data() + r * stride, out * sizeof(float)) == 0, "a row's product is what it is alone");
    for (int64_t o = 0; o < out; ++o) {
      double sum = added ? added[o] : 0, size = 0;
      for (int64_t k = 0; k < in; ++k) sum += double(x[r * in + k]) * w[o * in + k], size += std::fabs(double(x[r * in + k]) * w[o * in + k]);
      check(near(alone[o], sum, size), "products are right");
    }
  }
}

void check_mix(const Loops& loops) {
  const int64_t rows = draw(1, 9), terms = draw(0, 70), n = draw(1, 80), stride = terms + draw(0, 3);
  const auto p = random_floats(rows * stride), v = random_floats(terms * n), before = random_floats(rows * n);
  auto y = before;
  loops.mix(y.data(), p.data(), stride, rows, v.data(), terms, n);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> alone(before.begin() + r * n, before.begin() + (r + 1) * n);
    loops.mix(alone.data(), p.data() + r * stride, stride, 1, v.data(), terms, n);
    check(std::memcmp(alone.data(), y.data() + r * n, n * sizeof(float)) == 0, "a row's mix is what it is alone");
    for (int64_t c = 0; c < n; ++c) {
      double sum = before[r * n + c];
      for (int64_t t = 0; t < terms; ++t) sum += double(p[r * stride + t]) * v[t * n + c];
      check(near(alone[c], sum, terms), "mixes are right");
    }
  }
}

// One block behind another, the first of them far above, below or beside the second.
void check_soften(const Loops& loops) {
  const int64_t dim = draw(1, 20);
  auto y = random_floats(dim);
  float most = -INFINITY, total = 0;
  double exponentials = 0;
  for (int block = 0; block < 2; ++block) {
    const int64_t n = draw(1, 70);
    auto s = random_floats(n, static_cast<float>(draw(0, 60)));
    const auto scores = s;
    const auto before = y;
    const float last = most;
    loops.soften(s.data(), n, &most, &total, y.data(), dim);
    for (const float x : scores) check(x <= most, "the largest score is known");
    exponentials *= std::exp(double(last) - most);
    for (int64_t c = 0; c < dim; ++c) check(near(y[c], before[c] * std::exp(double(last) - most), 3), "what was mixed is brought to the new largest");
    for (int64_t i = 0; i < n; ++i) {
      const double wanted = std::exp(double(scores[i] - most));
      const bool lost = wanted < 1.2e-38 && s[i] <= 1.2e-38F;  // below the smallest normal number
      check(lost || std::fabs(s[i] - wanted) <= 2 * (std::nextafter(static_cast<float>(wanted), 2.0F) - static_cast<float>(wanted)), "exp to two units");
      exponentials += wanted;
    }
    check(near(total, exponentials, exponentials), "exponentials are summed");
  }
  float infinite[3] = {NAN, 1, 2};
  loops.soften(infinite, 3, &most, &total, y.data(), dim);
  check(std::isnan(total), "NaN is not lost");
}

void check_rows(const Loops& loops) {
  const int64_t n = draw(1, 70);
  const auto x = random_floats(n, 3), w = random_floats(n), before = random_floats(n);
  auto y = before, gated = x;
  const bool added = draw(0, 1);
  loops.norm(y.data(), x.data(), w.data(), n, 1e-5F, added);
  loops.gate(gated.data(), gated.data(), w.data(), n);
  double squares = 0;
  for (const float each : x) squares += double(each) * each;
  for (int64_t i = 0; i < n; ++i) {
    check(near(y[i], x[i] * w[i] / std::sqrt(squares / n + 1e-5) + (added ? before[i] : 0), 3), "norms are right");
    check(near(gated[i], x[i] / (1 + std::exp(-double(x[i]))) * w[i], 3), "gates are right");
  }
  float extremes[4] = {-200, 200, -INFINITY, NAN};
  const float ones[4] = {1, 1, 1, 1};
  loops.gate(extremes, extremes, ones, 4);
  check(std::fabs(extremes[0]) < 1e-30F && extremes[1] == 200 && std::isnan(extremes[3]), "gates keep what is large, and NaN");
}

// -- a decoder

struct Toy {
  Shape shape;
  std::vector<std::vector<float>> floats;
  std::vector<std::vector<Half>> halves;
  std::unique_ptr<Decoder> decoder;

  const float* weights(int64_t count, float spread = 0.3F) { return floats.emplace_back(random_floats(count, spread)).data(); }
  Linear linear(int64_t in, int64_t out, bool biased = false) {
    const float* bias = biased ? weights(out) : nullptr;
    weights(in * out);
    if (draw(0, 1)) return {floats.back().data(), bias, in, out};
    return {halves.emplace_back(halves_of(floats.back())).data(), bias, in, out};
  }

  Toy() {
    const int64_t kv_heads = draw(1, 3), heads = kv_heads * draw(1, 4), dim = 2 * draw(1, 20), hidden = draw(1, 50), mlp = draw(1, 60);
    shape = {hidden, heads, kv_heads, dim, mlp, 1e-5F};
    std::vector<Layer> layers;
    for (int64_t n = draw(1, 3); n > 0; --n)
      layers.push_back({linear(hidden, (heads + 2 * kv_heads) * dim, true), linear(heads * dim, hidden), linear(hidden, 2 * mlp),
                        linear(mlp, hidden), weights(hidden, 1), weights(hidden, 1), weights(hidden, 1), weights(hidden, 1)});
    std::vector<int64_t> axes(dim / 2);
    for (auto& axis : axes) axis = draw(0, 2);
    const float* norm = weights(hidden, 1);
    decoder = std::make_unique<Decoder>(shape, std::move(layers), norm, random_floats(dim / 2), axes);
  }
};

struct Past {
  std::vector<float> kv;
  Memory memory;

  Past(const Toy& toy, int64_t tokens) : kv(random_floats(static_cast<int64_t>(toy.decoder->layers()) * 2 * toy.shape.kv_heads * tokens * toy.shape.head_dim)) {
    const int64_t of_head = tokens * toy.shape.head_dim, of_kind = of_head * toy.shape.kv_heads;
    memory = {kv.data(), 2 * of_kind, of_kind, of_head, tokens};
  }
};

void check_decoder() {
  const Toy toy;
  const int64_t turns = draw(1, 5), hidden = toy.shape.hidden;
  const Past first(toy, draw(1, 150)), second(toy, draw(1, 20));
  std::vector<Past> tails;
  std::vector<int64_t> lengths, starts{0};
  for (int64_t turn = 0; turn < turns; ++turn) {
    const int64_t rows = draw(1, 6);
    lengths.push_back(draw(0, 10));
    tails.emplace_back(toy, lengths.back() + rows + draw(0, 2));
    starts.push_back(starts.back() + rows);
  }
  const int64_t rows = starts.back();
  std::vector<int64_t> at(3 * rows);
  for (auto& position : at) position = draw(0, 3000);
  const auto embeddings = random_floats(rows * hidden);

  const auto untouched = tails;
  const auto put_back = [&] {
    for (size_t n = 0; n < tails.size(); ++n) std::copy(untouched[n].kv.begin(), untouched[n].kv.end(), tails[n].kv.begin());
  };
  std::vector<Span> spans;
  for (int64_t n = 0; n < turns; ++n) spans.push_back({&tails[n].memory, lengths[n], starts[n], starts[n + 1]});
  for (auto& tail : tails) tail.memory.kv = tail.kv.data();
  std::vector<Shared> shared{{&first.memory, 0, rows}};
  const int64_t others = draw(0, turns - 1);  // turns before these do not see the second segment
  shared.push_back({&second.memory, starts[others], rows});

  auto together = embeddings;
  toy.decoder->forward(together.data(), rows, {at.data(), rows, 1}, shared, spans);
  const auto written = tails;
  put_back();
  for (const float x : together) check(std::isfinite(x), "hidden states are finite");

  for (int64_t n = 0; n < turns; ++n) {
    const int64_t own = starts[n + 1] - starts[n];
    std::vector<float> alone(embeddings.begin() + starts[n] * hidden, embeddings.begin() + starts[n + 1] * hidden);
    std::vector<Shared> seen{{&first.memory, 0, own}};
    if (n >= others) seen.push_back({&second.memory, 0, own});
    toy.decoder->forward(alone.data(), own, {at.data() + starts[n], rows, 1}, seen, {{&tails[n].memory, lengths[n], 0, own}});
    check(std::memcmp(alone.data(), together.data() + starts[n] * hidden, alone.size() * sizeof(float)) == 0, "a turn's rows are what they are alone");
    check(same(tails[n].kv, written[n].kv), "so is what is written of them");
  }
  put_back();
  for (int64_t n = 0; n < turns; ++n) {  // one row after the other
    for (int64_t row = starts[n]; row < starts[n + 1]; ++row) {
      std::vector<float> alone(embeddings.begin() + row * hidden, embeddings.begin() + (row + 1) * hidden);
      std::vector<Shared> seen{{&first.memory, 0, 1}};
      if (n >= others) seen.push_back({&second.memory, 0, 1});
      toy.decoder->forward(alone.data(), 1, {at.data() + row, rows, 1}, seen, {{&tails[n].memory, lengths[n] + row - starts[n], 0, 1}});
      check(std::memcmp(alone.data(), together.data() + row * hidden, hidden * sizeof(float)) == 0, "a row is what it is alone");
    }
    check(same(tails[n].kv, written[n].kv), "rows write what they write together");
  }

  for (long count = 0;; ++count) {
    auto x = embeddings;
    put_back();
    allocations_left = count;
    try {
      toy.decoder->forward(x.data(), rows, {at.data(), rows, 1}, shared, spans);
      allocations_left = -1;
      check(count >= 3 && same(x, together), "a step that found memory is right");
      return;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      for (size_t n = 0; n < tails.size(); ++n) check(same(tails[n].kv, untouched[n].kv), "a step without memory writes nothing");
    }
  }
}

}  // namespace

void* operator new(size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  void* memory = std::malloc(size ? size : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

int main(int count, char** arguments) {
  const long rounds = count > 1 ? std::atol(arguments[1]) : 500;
  size_t versions = 0;
  const Loops* const* all = all_loops(versions);
  for (long round = 0; round < rounds; ++round) {
    current_round = round;
    random_bits.seed(static_cast<uint32_t>(round));
    for (size_t version = 0; version < versions; ++version) {
      check_product(*all[version]);
      check_mix(*all[version]);
      check_soften(*all[version]);
      check_rows(*all[version]);
    }
    check_decoder();
  }
  std::printf("%ld rounds\n", rounds);
}
