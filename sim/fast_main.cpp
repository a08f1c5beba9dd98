// Drives the compiled core `accel` with frames from a file and writes the result frames to another.
//
// Arguments are NAME=NUMBER or NAME=PATH (see main). Stalls are drawn per segment, so that runs at full speed, runs of
// random stalls and long standstills all occur. At the end one JSON object goes to standard output; the exit code is 0
// for a run without a fault, 3 for a fault of the core (rule of the bus broken, wrong frame, no progress), 4 where a file
// cannot be written.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "Vcore.h"
#include "verilated.h"

namespace {

typedef uint64_t u64;

struct Random {                                          // xorshift64*, the same on every machine
    u64 state;
    explicit Random(u64 seed) : state(seed * 0x9E3779B97F4A7C15ull + 0x1234567ull) { next(); next(); }
    uint32_t next() {
        state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
        return static_cast<uint32_t>((state * 0x2545F4914F6CDD1Dull) >> 32);
    }
    uint32_t below(uint32_t n) { return n ? next() % n : 0; }
};

struct Staller {                                         // true: stand still in this cycle
    Random random;
    uint32_t percent, now = 0;
    int left = 0;
    Staller(u64 seed, uint32_t p) : random(seed), percent(p) {}
    bool operator()() {
        if (!percent) return false;
        if (left-- <= 0) {
            static const uint32_t tenths[] = {0, 10, 10, 10, 19};
            left = 16 + random.below(500);
            uint32_t p = percent * tenths[random.below(5)] / 10;
            now = p > 97 ? 97 : p;
        }
        return random.below(100) < now;
    }
};

// Ports are integers up to 64 bits and arrays of 32-bit words above.
template <class T> void put(T& port, const uint8_t* bytes, int count) {
    u64 value = 0;
    for (int i = 0; i < count; i++) value |= static_cast<u64>(bytes[i]) << 8 * i;
    port = static_cast<T>(value);
}
template <class T> void get(const T& port, uint8_t* bytes, int count) {
    for (int i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(static_cast<u64>(port) >> 8 * i);
}
template <std::size_t N> void put(VlWide<N>& port, const uint8_t* bytes, int count) {
    for (std::size_t i = 0; i < N; i++) port[i] = 0;
    for (int i = 0; i < count; i++) port[i / 4] |= static_cast<uint32_t>(bytes[i]) << 8 * (i % 4);
}
template <std::size_t N> void get(const VlWide<N>& port, uint8_t* bytes, int count) {
    for (int i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(port[i / 4] >> 8 * (i % 4));
}

struct Frame { long index; };                            // index -1: a bad frame

std::map<std::string, std::string> arguments;
u64 number(const char* name, u64 otherwise) {
    auto found = arguments.find(name);
    return found == arguments.end() ? otherwise : strtoull(found->second.c_str(), nullptr, 10);
}
// A full disk must not look like a short result.
[[noreturn]] void cannot_write(const char* name) {
    fprintf(stderr, "cannot write %s: %s\n", arguments[name].c_str(), strerror(errno));
    exit(4);
}
FILE* open_file(const char* name, const char* mode) {
    FILE* file = fopen(arguments[name].c_str(), mode);
    if (!file) {
        fprintf(stderr, "cannot open %s: %s\n", arguments[name].c_str(), strerror(errno));
        exit(mode[0] == 'w' ? 4 : 1);
    }
    return file;
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; i++) {
        const char* sign = strchr(argv[i], '=');
        if (!sign) { fprintf(stderr, "not NAME=VALUE: %s\n", argv[i]); return 1; }
        arguments[std::string(argv[i], sign - argv[i])] = sign + 1;
    }
    const int in_bytes = number("in_bytes", 1), in_beats = number("in_beats", 1);
    const int out_bytes = number("out_bytes", 1), out_beats = number("out_beats", 1);
    const long frames = number("frames", 0);
    const u64 seed = number("seed", 0), watchdog = number("watchdog", 1000000), drain = number("drain", 1000);
    const uint32_t faults = number("faults", 0);         // percent of frames before which something goes wrong
    Staller stall_in(2 * seed + 1, number("stall_in", 0)), stall_out(2 * seed + 2, number("stall_out", 0));
    Random random(seed + 77);

    FILE* in = open_file("in", "rb");
    FILE* out = open_file("out", "wb");
    FILE* stamps = open_file("stamps", "wb");
    std::vector<uint8_t> codes(static_cast<std::size_t>(frames) * in_beats * in_bytes);
    if (fread(codes.data(), 1, codes.size(), in) != codes.size()) { fprintf(stderr, "input file is too short\n"); return 1; }
    fclose(in);

    VerilatedContext context;
    context.randReset(2);                                // what has no initial value starts at random
    context.randSeed(static_cast<int>(seed % 2147483646) + 1);
    Vcore core{&context};

    u64 cycle = 0, progress = 0, resets = 0, shorts = 0, longs = 0, bad_results = 0;
    std::string error;
    std::deque<Frame> under_way;                         // frames begun, whose result is not complete
    std::vector<u64> first_in(frames ? frames : 1);
    long sending = 0, done = 0;                          // next frame to send; frames with a complete result
    // The frame on its way in: kind 0 good, 1 short, 2 long, 3 cut by a reset; beats to send, beats sent.
    int kind = 0, beats = 0, beat = 0;
    bool in_frame = false, holds = false, just_failed = false;
    // Kinds that must still be thrown in, whatever the dice say: each at least once where faults are asked for. The reset
    // comes first, for it would make the others' results vanish unseen.
    std::vector<int> owed;
    if (faults) {
        owed = {2};
        if (in_beats > 1) owed.insert(owed.begin() + random.below(2), 1);   // nothing is shorter than one beat
        owed.push_back(3);
    }
    std::vector<uint8_t> data(in_bytes), held(out_bytes), seen(out_bytes), result(out_bytes * out_beats);
    int results = 0, reset_left = 0;
    u64 first_out = 0, quiet = 0;
    bool held_last = false, held_user = false, waiting = false;

    core.rst = 0; core.s_axis_tvalid = 0; core.s_axis_tlast = 0; core.m_axis_tready = 0; core.clk = 0;
    put(core.s_axis_tdata, data.data(), in_bytes);
    core.eval();

    while (error.empty()) {
        if (done == frames && !in_frame && under_way.empty() && ++quiet > drain) break;
        // Choose the next frame, or what goes wrong instead.
        if (!in_frame && sending < frames && !reset_left) {
            kind = 0; beats = in_beats;
            const bool must = frames - sending <= static_cast<long>(owed.size());
            if (faults && (must ? !owed.empty() : (!just_failed || !random.below(4)) && random.below(100) < faults)) {
                if (owed.empty()) {
                    kind = 1 + random.below(3);
                    if (kind == 1 && in_beats == 1) kind = 2;
                } else {
                    kind = owed.back();
                    owed.pop_back();
                }
                if (kind == 1) { beats = 1 + random.below(in_beats - 1); shorts++; }
                if (kind == 2) { beats = in_beats + 1 + random.below(2 * in_beats); longs++; }
                if (kind == 3) beats = random.below(in_beats + 1);
            }
            just_failed = kind != 0;
            in_frame = true; beat = 0; holds = false;
        }
        if (in_frame && kind == 3 && beat == beats) {    // the frame ends here: reset
            core.rst = 1; reset_left = 1 + random.below(3); resets++;
            in_frame = false; holds = false;
        }
        // Drive. A beat that was offered stays until it is taken.
        if (in_frame && !holds && !stall_in()) {
            holds = true;
            for (int i = 0; i < in_bytes; i++)
                data[i] = kind == 0 ? codes[(static_cast<std::size_t>(sending) * in_beats + beat) * in_bytes + i]
                                    : static_cast<uint8_t>(random.next());
            put(core.s_axis_tdata, data.data(), in_bytes);
        }
        core.s_axis_tvalid = holds;
        core.s_axis_tlast = holds && kind != 3 && beat == beats - 1;
        core.m_axis_tready = !stall_out();
        core.clk = 0;
        core.eval();

        // What happens at the coming clock edge.
        if (reset_left) {
            waiting = false;
        } else {
            if (holds && core.s_axis_tready) {
                if (beat == 0) {
                    under_way.push_back({kind == 0 ? sending : -1});
                    if (kind == 0) first_in[sending] = cycle;
                }
                holds = false; progress = cycle;
                if (++beat == beats && kind != 3) {
                    in_frame = false;
                    if (kind == 0) sending++;
                }
            }
            if (core.m_axis_tvalid) {
                get(core.m_axis_tdata, seen.data(), out_bytes);
                if (waiting && (seen != held || core.m_axis_tlast != held_last ||
                                (held_last && core.m_axis_tuser != held_user)))
                    error = "m_axis changed its payload while it was valid and not ready";
                held = seen; held_last = core.m_axis_tlast; held_user = core.m_axis_tuser;
                waiting = !core.m_axis_tready;
                if (!waiting && error.empty()) {
                    progress = cycle;
                    const bool last = results == out_beats - 1;
                    if (under_way.empty()) {
                        error = "a result beat came although no frame was under way";
                    } else if (static_cast<bool>(core.m_axis_tlast) != last) {
                        error = last ? "m_axis_tlast is missing at the end of a result frame"
                                     : "m_axis_tlast came before the end of a result frame";
                    } else {
                        if (!results) first_out = cycle;
                        memcpy(&result[results * out_bytes], seen.data(), out_bytes);
                        if (++results == out_beats) {
                            const long index = under_way.front().index;
                            under_way.pop_front();
                            results = 0;
                            if (static_cast<bool>(core.m_axis_tuser) != (index < 0)) {
                                error = index < 0 ? "m_axis_tuser is 0 on the result of a frame of a wrong length"
                                                  : "m_axis_tuser is 1 on the result of a good frame";
                            } else if (index < 0) {
                                bad_results++;
                            } else {
                                const u64 stamp[3] = {first_in[index], first_out, cycle};
                                if (fwrite(result.data(), 1, result.size(), out) != result.size()) cannot_write("out");
                                if (fwrite(stamp, sizeof stamp, 1, stamps) != 1) cannot_write("stamps");
                                if (!(++done & 15) && fflush(out)) cannot_write("out");
                            }
                        }
                    }
                }
            } else if (waiting) {
                error = "m_axis_tvalid fell before m_axis_tready came";
            }
            if (cycle - progress > watchdog && error.empty() && !(done == frames && under_way.empty()))
                error = "nothing moved for " + std::to_string(watchdog) + " cycles";
        }
        if (!error.empty()) break;
        core.clk = 1;
        core.eval();
        cycle++;
        if (reset_left && !--reset_left) {               // all that was under way is lost, and is sent again
            core.rst = 0;
            under_way.clear();
            results = 0; sending = done; progress = cycle;
        }
    }
    core.final();
    if (fclose(out)) cannot_write("out");
    if (fclose(stamps)) cannot_write("stamps");
    printf("{\"cycles\": %llu, \"frames\": %ld, \"resets\": %llu, \"short\": %llu, \"long\": %llu, \"bad\": %llu, "
           "\"sent\": %ld, \"beat\": %d, \"result_beat\": %d, \"error\": \"%s\"}\n",
           (unsigned long long)cycle, done, (unsigned long long)resets, (unsigned long long)shorts,
           (unsigned long long)longs, (unsigned long long)bad_results, sending, beat, results, error.c_str());
    return error.empty() ? 0 : 3;
}
