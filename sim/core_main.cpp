// Drive the core from a file of frames, at full compiled speed, with random stalls at both ends.
// usage: sim IN OUT FRAMES IN_BYTES IN_BEATS OUT_BYTES OUT_BEATS STALL_IN STALL_OUT SEED FAULT LIMIT
//   STALL_*: chance of a pause, in 1/256 a cycle. FAULT: 0 none, 1 reset inside the second frame (that frame is sent again),
//   2 a short frame before each, 3 a long frame before each. LIMIT: cycles without any progress before giving up.
// Each result beat becomes OUT_BYTES bytes and one byte of tuser | tlast << 1 in OUT. The last line printed is JSON.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "Vaccel.h"
#include "verilated.h"

template <class T> static void set_bytes(T& port, const uint8_t* p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n && i < 8; i++) v |= uint64_t(p[i]) << (8 * i);
    port = v;
}
template <std::size_t W> static void set_bytes(VlWide<W>& port, const uint8_t* p, int n) {
    for (std::size_t w = 0; w < W; w++) {
        uint32_t v = 0;
        for (int b = 0; b < 4; b++) if (int(4 * w + b) < n) v |= uint32_t(p[4 * w + b]) << (8 * b);
        port[w] = v;
    }
}
static uint64_t state;
static uint32_t chance() { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return (state >> 20) & 255; }

int main(int argc, char** argv) {
    if (argc != 13) return 64;
    auto num = [&](int i) { return std::strtoll(argv[i], nullptr, 10); };
    const long frames = num(3), in_bytes = num(4), in_beats = num(5), out_bytes = num(6), out_beats = num(7);
    const uint32_t stall_in = num(8), stall_out = num(9);
    state = num(10) * 0x9E3779B97F4A7C15ull + 1;
    const int fault = num(11);
    const long limit = num(12), size = in_bytes * in_beats;
    FILE* in = std::fopen(argv[1], "rb");
    FILE* out = std::fopen(argv[2], "wb");
    if (!in || !out) { std::perror("open"); return 65; }
    std::vector<uint8_t> data(frames * size);
    if (std::fread(data.data(), 1, data.size(), in) != data.size()) { std::fprintf(stderr, "input too short\n"); return 65; }

    VerilatedContext context;
    Vaccel dut{&context};
    // A plan of frames to send: index into data, beats, whether the result is wanted.
    struct Send { long frame, beats; };
    std::vector<Send> plan;
    long wanted = frames;
    for (long f = 0; f < frames; f++) {
        if (fault == 2) { plan.push_back({f, in_beats / 2 ? in_beats / 2 : 1}); wanted++; }
        if (fault == 3) { plan.push_back({f, in_beats + 3}); wanted++; }
        plan.push_back({f, in_beats});
    }
    long cycle = 0, idle = 0, results = 0, beats = 0, first = -1, last = -1, at = 0, beat = 0, errors = 0;
    bool offered = false, was_valid = false, reset_done = fault != 1, was_ready = false;
    std::vector<uint8_t> held;
    int reset = 4;
    std::vector<long> stamps;
    dut.s_axis_tvalid = 0; dut.m_axis_tready = 0; dut.rst = 1; dut.clk = 0; dut.eval();
    while (results < wanted) {
        // Inputs for this cycle, chosen while the clock is low.
        dut.rst = reset > 0;
        if (reset > 0) { reset--; dut.s_axis_tvalid = 0; dut.m_axis_tready = 0; offered = false; was_valid = false; }
        else {
            if (!offered && at < long(plan.size()) && (stall_in == 0 || chance() >= stall_in)) {
                const Send& s = plan[at];
                set_bytes(dut.s_axis_tdata, &data[s.frame * size + (beat % in_beats) * in_bytes], in_bytes);
                dut.s_axis_tlast = beat == s.beats - 1;
                dut.s_axis_tvalid = 1; offered = true;
            }
            dut.m_axis_tready = stall_out == 0 || chance() >= stall_out;
        }
        dut.eval();
        const bool took = offered && dut.s_axis_tready && reset == 0 && !dut.rst;
        const bool gave = dut.m_axis_tvalid && dut.m_axis_tready && !dut.rst;
        if (!dut.rst) {
            std::vector<uint8_t> now;
            if (dut.m_axis_tvalid) {
                uint64_t v = dut.m_axis_tdata;
                for (int b = 0; b < out_bytes; b++) now.push_back(v >> (8 * b));
                now.push_back(dut.m_axis_tuser | dut.m_axis_tlast << 1);
            }
            if (was_valid && !was_ready && (!dut.m_axis_tvalid || now != held)) {
                std::fprintf(stderr, "cycle %ld: result withdrawn or changed before it was taken\n", cycle); errors++;
            }
            was_valid = dut.m_axis_tvalid; was_ready = dut.m_axis_tready; held = now;
            if (gave) {
                std::fwrite(now.data(), 1, now.size(), out);
                if ((dut.m_axis_tlast != 0) != (beats == out_beats - 1)) { std::fprintf(stderr, "cycle %ld: tlast at the wrong beat\n", cycle); errors++; }
                if (++beats == out_beats) { beats = 0; results++; if (first < 0) first = cycle; last = cycle; stamps.push_back(cycle); }
            }
        }
        dut.clk = 1; dut.eval(); context.timeInc(1);
        if (took) {
            dut.s_axis_tvalid = 0; offered = false;
            if (++beat == plan[at].beats) { beat = 0; at++; }
            if (!reset_done && at == 1 && beat == in_beats / 2) {
                // Everything under way is lost; results that were not out yet are asked for again.
                reset_done = true; reset = 3; beat = 0; beats = 0; at = results;
                std::fseek(out, results * out_beats * (out_bytes + 1), SEEK_SET);
            }
        }
        dut.clk = 0; dut.eval(); context.timeInc(1);
        idle = took || gave ? 0 : idle + 1;
        if (idle > limit) { std::fprintf(stderr, "no progress for %ld cycles: %ld of %ld results\n", limit, results, wanted); return 66; }
        if (errors > 5) return 67;
        cycle++;
    }
    std::fclose(out);
    const long n = stamps.size();
    const double steady = n > 3 ? double(stamps[n - 1] - stamps[1]) / (n - 2) : 0;
    std::printf("{\"cycles\": %ld, \"first\": %ld, \"steady\": %.3f, \"errors\": %ld}\n", cycle, first, steady, errors);
    return errors ? 67 : 0;
}
