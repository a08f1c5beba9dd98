// Two frames through the core in a 4-state simulator, output stalled at random; prints every result.
`timescale 1ns/1ps
module tb;
  parameter BEATS = 784, FRAMES = 2, RESULTS = 20, LIMIT = 200000;
  reg clk = 0, rst = 1, valid = 0, ready = 0;
  reg [7:0] codes [0:BEATS*FRAMES-1];
  reg [7:0] data = 0;
  integer i = 0, cycle = 0, n = 0, unknown = 0, seed = 1;
  wire s_ready, m_valid, m_last, m_user;
  wire [15:0] result;
  always #5 clk = ~clk;
  accel dut (.clk(clk), .rst(rst), .s_axis_tdata(data), .s_axis_tvalid(valid), .s_axis_tready(s_ready),
             .s_axis_tlast(i % BEATS == BEATS - 1), .m_axis_tdata(result), .m_axis_tvalid(m_valid), .m_axis_tready(ready),
             .m_axis_tlast(m_last), .m_axis_tuser(m_user));
  initial begin
    $readmemh("input.hex", codes);
    repeat (4) @(posedge clk);
    #1 rst = 0; valid = 1; data = codes[0];
  end
  always @(posedge clk) if (!rst) begin
    if (valid && s_ready === 1'b1) begin
      #1 i = i + 1;
      if (i >= BEATS * FRAMES) valid = 0; else data = codes[i];
    end else #1;
    ready = $random(seed);
  end
  always @(negedge clk) if (!rst) begin
    cycle = cycle + 1;
    if (m_valid === 1'bx || s_ready === 1'bx) unknown = unknown + 1;
    if (m_valid === 1'b1) begin
      if ((^{result, m_last, m_user}) === 1'bx) unknown = unknown + 1;
      if (ready) begin $display("%0d %b %b", $signed(result), m_last, m_user); n = n + 1; end
    end
    if (n == RESULTS || cycle > LIMIT) begin $display("END %0d %0d", n, unknown); $finish; end
  end
endmodule
