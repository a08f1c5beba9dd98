// A simulated board: the UART top `clk, rx, tx` compiled, its bytes on standard input and output.
//
// Cycles a bit and the idle limit are fixed when it is compiled (DIVISOR, IDLE). Once nothing has moved on either line
// for IDLE cycles the clock stands still until more input comes; at the end of the input the program runs on for IDLE
// quiet cycles and ends. What has no initial value starts at random.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <poll.h>
#include <unistd.h>

#include "Vcore.h"
#include "verilated.h"

namespace {
const int START = 4096;                                  // cycles: the power-on reset of 15 us, at any clock up to 270 MHz
}

int main() {
    VerilatedContext context;
    context.randReset(2);
    context.randSeed(1);
    Vcore top{&context};
    std::deque<uint8_t> waiting;
    bool ended = false;
    uint64_t quiet = 0;
    // Sender: ten bits, the start bit lowest. Receiver: samples each bit in its middle.
    uint32_t sending = 0, received = 0;
    int bits_left = 0, bit_time = 0, bits_in = 0, sample_in = 0, until_poll = 0;

    top.rx = 1; top.clk = 0; top.eval();
    for (int i = 0; i < START; i++) {                    // nobody talks to a board that was not there a moment ago
        top.clk = 0; top.eval();
        top.clk = 1; top.eval();
    }
    for (;;) {
        // Asking the system costs more than a cycle, so look for input once a bit; wait for it when idle.
        if (!ended && --until_poll < 0) {
            until_poll = DIVISOR;
            pollfd ready = {0, POLLIN, 0};
            if (poll(&ready, 1, quiet > IDLE && waiting.empty() ? -1 : 0) > 0) {
                uint8_t bytes[4096];
                const ssize_t count = read(0, bytes, sizeof bytes);
                if (count <= 0) ended = true;
                else waiting.insert(waiting.end(), bytes, bytes + count);
                quiet = 0;
            }
        }
        if (ended && waiting.empty() && !bits_left && quiet > IDLE) break;
        if (!bits_left && !waiting.empty()) {
            sending = 0x200u | static_cast<uint32_t>(waiting.front()) << 1;
            waiting.pop_front();
            bits_left = 10;
            bit_time = DIVISOR;
        }
        top.rx = bits_left ? sending & 1 : 1;
        top.clk = 0; top.eval();
        top.clk = 1; top.eval();
        quiet++;
        if (bits_left) {
            quiet = 0;
            if (!--bit_time) { sending >>= 1; bit_time = DIVISOR; bits_left--; }
        }
        if (!bits_in) {
            if (!top.tx) { bits_in = 9; sample_in = DIVISOR + DIVISOR / 2; received = 0; }
        } else {
            quiet = 0;
            if (!--sample_in) {
                sample_in = DIVISOR;
                if (--bits_in) {
                    received = received >> 1 | (top.tx ? 0x80u : 0);
                } else if (top.tx) {                     // a stop bit; without one it was no byte
                    const uint8_t byte = static_cast<uint8_t>(received);
                    if (write(1, &byte, 1) != 1) return 0;   // nobody listens any more
                }
            }
        }
    }
    top.final();
    return 0;
}
