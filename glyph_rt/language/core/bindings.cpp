// The Python face of the decode step. Arguments are checked here once; the loops behind run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <variant>

#include "decoder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace glyph_rt {
namespace {

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Halves = nb::ndarray<const Half, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<const int64_t, nb::shape<3, -1>, nb::device::cpu>;
using Weight = std::variant<Table, Halves>;
using PyLayer = std::tuple<std::tuple<Weight, Vector>, Weight, Weight, Weight, Vector, Vector, Vector, Vector>;

void check(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

int64_t size(size_t n) { return static_cast<int64_t>(n); }

// Keys and values of some tokens, kept alive for as long as they may be read.
class KV {
 public:
  explicit KV(nb::ndarray<float, nb::ndim<5>, nb::device::cpu> kv) : kv_(std::move(kv)) {
    check(size(kv_.shape(1)) == 2, "keys and values must be [layers, 2, kv_heads, tokens, head_dim]");
    check(kv_.stride(4) == 1 && kv_.stride(3) == size(kv_.shape(4)), "the tokens of a head must lie behind each other");
    memory_ = {kv_.data(), kv_.stride(0), kv_.stride(1), kv_.stride(2), size(kv_.shape(3))};
  }
  const Memory& checked(const Shape& shape, size_t layers) const {
    check(kv_.shape(0) == layers && size(kv_.shape(2)) == shape.kv_heads && size(kv_.shape(4)) == shape.head_dim, "this KV is of another model");
    return memory_;
  }

 private:
  nb::ndarray<float, nb::ndim<5>, nb::device::cpu> kv_;
  Memory memory_;
};

// A decoder with its output head, and the arrays its weights lie in.
class Model {
 public:
  Model(std::vector<PyLayer> layers, Vector norm, Weight head, Vector frequencies, std::vector<int64_t> axes, int64_t heads, int64_t kv_heads, float eps)
      : weights_(std::move(layers)), norm_(std::move(norm)), head_(std::move(head)), output_(linear(head_)),
        decoder_(shape(heads, kv_heads, eps), view(), norm_.data(), {frequencies.data(), frequencies.data() + frequencies.size()}, axes) {
    const Shape& shape = decoder_.shape();
    check(axes.size() == frequencies.size() && 2 * size(axes.size()) == shape.head_dim, "a frequency and an axis for every pair of a head");
    check(std::all_of(axes.begin(), axes.end(), [](int64_t axis) { return 0 <= axis && axis < 3; }), "positions have three axes");
    check(output_.in == shape.hidden, "the head must be [vocabulary, hidden]");
    for (const auto& [qkv, out, gate_up, down, a, b, c, d] : weights_) {
      const auto& [weight, bias] = qkv;
      const int64_t width = (heads + 2 * kv_heads) * shape.head_dim;
      check(is(linear(weight), width, shape.hidden) && size(bias.size()) == width, "qkv must be [(heads + 2 kv_heads) head_dim, hidden]");
      check(is(linear(out), shape.hidden, heads * shape.head_dim), "out must be [hidden, heads head_dim]");
      check(is(linear(gate_up), 2 * shape.mlp, shape.hidden) && is(linear(down), shape.hidden, shape.mlp), "gate_up must be [2 mlp, hidden], down [hidden, mlp]");
      for (const Vector& norm : {a, b, c, d}) check(size(norm.size()) == shape.hidden, "norms must be [hidden]");
    }
  }

  void forward(Out x, Places positions, const std::vector<std::tuple<const KV*, int64_t, int64_t>>& shared,
               const std::vector<std::tuple<const KV*, int64_t, int64_t, int64_t>>& spans) const {
    const int64_t rows = size(x.shape(0));
    check(size(x.shape(1)) == decoder_.shape().hidden && size(positions.shape(1)) == rows, "x must be [rows, hidden], positions [3, rows]");
    std::vector<Shared> seen;
    for (const auto& [kv, start, stop] : shared) {
      check(kv && 0 <= start && start < stop && stop <= rows, "who sees a segment must be rows of the step");
      seen.push_back({&kv->checked(decoder_.shape(), decoder_.layers()), start, stop});
    }
    std::vector<Span> own;
    int64_t at = 0;
    for (const auto& [kv, length, start, stop] : spans) {
      check(kv && start == at && start < stop && length >= 0, "spans must cover the rows of the step in order");
      const Memory& tail = kv->checked(decoder_.shape(), decoder_.layers());
      check(length <= tail.tokens - (stop - start), "a tail has no room for its rows");
      own.push_back({&tail, length, start, stop});
      at = stop;
    }
    check(at == rows, "spans must cover the rows of the step in order");
    const nb::gil_scoped_release release;
    decoder_.forward(x.data(), rows, {positions.data(), positions.stride(0), positions.stride(1)}, seen, own);
  }

  void logits(Table hidden, Out out) const {
    check(size(hidden.shape(1)) == output_.in && hidden.shape(0) == out.shape(0) && size(out.shape(1)) == output_.out,
          "hidden must be [rows, hidden], out [rows, vocabulary]");
    const nb::gil_scoped_release release;
    output_.run(out.data(), hidden.data(), size(hidden.shape(0)));
  }

 private:
  static Linear linear(const Weight& weight, const float* bias = nullptr) {
    return std::visit([bias](const auto& w) { return Linear{w.data(), bias, size(w.shape(1)), size(w.shape(0))}; }, weight);
  }
  static bool is(const Linear& linear, int64_t out, int64_t in) { return linear.out == out && linear.in == in; }

  Shape shape(int64_t heads, int64_t kv_heads, float eps) const {
    check(!weights_.empty() && heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "a decoder has layers, and query heads for every KV head");
    const int64_t hidden = size(norm_.size()), out = linear(std::get<1>(weights_[0])).in;
    check(hidden > 0 && out > 0 && out % heads == 0, "a head has as many numbers as another");
    return {hidden, heads, kv_heads, out / heads, linear(std::get<3>(weights_[0])).in, eps};
  }

  std::vector<Layer> view() const {
    std::vector<Layer> layers;
    for (const auto& [qkv, out, gate_up, down, a, b, c, d] : weights_)
      layers.push_back({linear(std::get<0>(qkv), std::get<1>(qkv).data()), linear(out), linear(gate_up), linear(down), a.data(), b.data(), c.data(), d.data()});
    return layers;
  }

  std::vector<PyLayer> weights_;
  Vector norm_;
  Weight head_;
  Linear output_;
  Decoder decoder_;
};

}  // namespace
}  // namespace glyph_rt

NB_MODULE(_step, m) {
  using namespace glyph_rt;
  // At exit Python never clears the globals of user modules; a model held by one is no leak.
  nb::set_leak_warnings(false);
  m.doc() = "The decode step of small fp32 decoders on a CPU: all layers for a few rows in one call.";
  m.def("instructions", [] { return loops().name; }, "The instruction set that this machine runs it in.");

  nb::class_<KV>(m, "KV", "Keys and values where they lie.")
      .def(nb::init<nb::ndarray<float, nb::ndim<5>, nb::device::cpu>>(), "kv"_a.noconvert(),
           "fp32 [layers, 2, kv_heads, tokens, head_dim], the tokens of a head behind each other. Not copied; kept alive.");

  nb::class_<Model>(m, "Model", "A decoder and its output head. Immutable; may run on any number of threads.")
      .def(nb::init<std::vector<PyLayer>, Vector, Weight, Vector, std::vector<int64_t>, int64_t, int64_t, float>(), nb::kw_only(),
           "layers"_a.noconvert(), "norm"_a, "head"_a.noconvert(), "frequencies"_a, "axes"_a, "heads"_a, "kv_heads"_a, "eps"_a,
           "layers: of each (qkv weight, bias), out, gate_up, down, and the norms before and after attention, before and after the MLP. Not copied; kept "
           "alive. Weights are fp32, or uint16 where these are the upper halves of floats (bfloat16). frequencies, axes: by how much, and which of, a token's three positions turns each pair of a head.")
      .def("forward", &Model::forward, "x"_a.noconvert(), "positions"_a.noconvert(), "shared"_a, "spans"_a,
           "x [rows, hidden] from embeddings to hidden states, in place, at rope positions [3, rows]. shared: (KV, start, stop), rows [start, stop) see all "
           "of it, in this order; spans: (KV, length, start, stop), rows whose keys and values go behind the first `length` tokens of their tail, and "
           "who see these and each other. Releases the GIL. A row's result does not depend on the other spans' rows.")
      .def("logits", &Model::logits, "hidden"_a, "out"_a.noconvert(), "hidden [rows, hidden] to out [rows, vocabulary]. Releases the GIL.");
}
