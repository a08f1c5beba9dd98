// Simulation models of the ECP5 cells that synthesis uses for hwq's cores; Yosys has none of DP16KD and MULT18X18D.
// A cell or a mode that is not modelled is an error: where a model is not exact it would make verification lie.
// Every unknown mode instantiates a module that does not exist, whose name says what is meant.
`timescale 1ns / 1ps

module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 16'h0000;
  assign Z = INIT[{D, C, B, A}];
endmodule

module INV(input A, output Z);
  assign Z = ~A;
endmodule

module VLO(output Z);
  assign Z = 1'b0;
endmodule

module VHI(output Z);
  assign Z = 1'b1;
endmodule

module PFUMX(input ALUT, BLUT, C0, output Z);
  assign Z = C0 ? ALUT : BLUT;
endmodule

module L6MUX21(input D0, D1, SD, output Z);
  assign Z = SD ? D1 : D0;
endmodule

// Two bits of a carry chain. Without injection the sum is LUT ^ carry, and the carry goes on where the LUT is 1;
// elsewhere it starts anew from the LUT's first four entries.
module CCU2C(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  parameter [15:0] INIT0 = 16'h0000;
  parameter [15:0] INIT1 = 16'h0000;
  parameter INJECT1_0 = "YES";
  parameter INJECT1_1 = "YES";
  wire inject0 = INJECT1_0 == "YES", inject1 = INJECT1_1 == "YES";
  wire l0 = INIT0[{D0, C0, B0, A0}], l1 = INIT1[{D1, C1, B1, A1}];
  wire middle = l0 ? CIN : !inject0 & INIT0[{2'b00, B0, A0}];
  assign S0 = l0 ^ (CIN & !inject0);
  assign S1 = l1 ^ (middle & !inject1);
  assign COUT = l1 ? middle : !inject1 & INIT1[{2'b00, B1, A1}];
endmodule

module TRELLIS_FF(input CLK, LSR, CE, DI, M, output reg Q);
  parameter GSR = "ENABLED";
  parameter [127:0] CEMUX = "1";
  parameter CLKMUX = "CLK";
  parameter LSRMUX = "LSR";
  parameter SRMODE = "LSR_OVER_CE";
  parameter REGSET = "RESET";
  parameter [127:0] LSRMODE = "LSR";
  wire on = CEMUX == "1" ? 1'b1 : CEMUX == "0" ? 1'b0 : CEMUX == "INV" ? ~CE : CE;
  wire reset = LSRMUX == "INV" ? ~LSR : LSR;
  localparam VALUE = REGSET == "SET";
  initial Q = VALUE;
  always @(posedge CLK)
    if (reset) Q <= VALUE;
    else if (on) Q <= DI;
  generate
    if (CLKMUX != "CLK") TRELLIS_FF_without_clock_inversion not_modelled();
    if (SRMODE != "LSR_OVER_CE") TRELLIS_FF_synchronous_with_LSR_OVER_CE_only not_modelled();
    if (LSRMODE != "LSR") TRELLIS_FF_without_PRLD not_modelled();
  endgenerate
endmodule

module TRELLIS_DPR16X4(input [3:0] DI, WAD, input WRE, WCK, input [3:0] RAD, output [3:0] DO);
  parameter WCKMUX = "WCK";
  parameter WREMUX = "WRE";
  parameter [63:0] INITVAL = 64'h0;
  reg [63:0] words = INITVAL;
  always @(posedge WCK) if (WRE) words[4 * WAD +: 4] <= DI;
  assign DO = words[4 * RAD +: 4];
  generate
    if (WCKMUX != "WCK" || WREMUX != "WRE") TRELLIS_DPR16X4_without_inversion not_modelled();
  endgenerate
endmodule

module MULT18X18D(
  input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
  input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
  input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
  parameter REG_INPUTA_CLK = "NONE",
    REG_INPUTB_CLK = "NONE",
    REG_INPUTC_CLK = "NONE",
    REG_PIPELINE_CLK = "NONE",
    REG_OUTPUT_CLK = "NONE";
  parameter MULT_BYPASS = "DISABLED";
  wire signed [18:0] a = {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
  wire signed [18:0] b = {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
  wire signed [37:0] product = a * b;
  // The chained inputs are not modelled: whoever selects them gets what is surely wrong.
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = SOURCEA | SOURCEB ? ~product[35:0] : product[35:0];
  generate
    if (REG_INPUTA_CLK != "NONE") MULT18X18D_without_registers not_modelled_inputa();
    if (REG_INPUTB_CLK != "NONE") MULT18X18D_without_registers not_modelled_inputb();
    if (REG_INPUTC_CLK != "NONE") MULT18X18D_without_registers not_modelled_inputc();
    if (REG_PIPELINE_CLK != "NONE") MULT18X18D_without_registers not_modelled_pipeline();
    if (REG_OUTPUT_CLK != "NONE") MULT18X18D_without_registers not_modelled_output();
    if (MULT_BYPASS != "DISABLED") MULT18X18D_without_bypass not_modelled_bypass();
  endgenerate
endmodule

// 1,024 words of 18 bits. Narrow ports see halves of 9 bits, of which those below 9 bits reach the lower 8 only; a port of 36
// bits takes words in pairs. Ports of 18 and 36 bits have enables for every 9 bits in place of the lowest address bits.
// Reads are registered. Both ports at one address in one cycle, one of them writing, is undefined on the chip; the core never
// does it, and the simulation of its RTL asserts so: here the read gives the inverse of what is stored, which is surely wrong.
// Both ports writing into one pair of words in one cycle is not modelled: both words then hold the inverse.
module DP16KD(
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18;
  parameter REGMODE_A = "NOREG";
  parameter CSDECODE_A = "0b000";
  parameter WRITEMODE_A = "NORMAL";
  parameter CLKAMUX = "CLKA";
  parameter DATA_WIDTH_B = 18;
  parameter REGMODE_B = "NOREG";
  parameter CSDECODE_B = "0b000";
  parameter WRITEMODE_B = "NORMAL";
  parameter CLKBMUX = "CLKB";
  parameter RESETMODE = "SYNC";
  parameter ASYNC_RESET_RELEASE = "SYNC";
  parameter GSR = "ENABLED";
  parameter [319:0] INITVAL_00 = 320'h0;
  parameter [319:0] INITVAL_01 = 320'h0;
  parameter [319:0] INITVAL_02 = 320'h0;
  parameter [319:0] INITVAL_03 = 320'h0;
  parameter [319:0] INITVAL_04 = 320'h0;
  parameter [319:0] INITVAL_05 = 320'h0;
  parameter [319:0] INITVAL_06 = 320'h0;
  parameter [319:0] INITVAL_07 = 320'h0;
  parameter [319:0] INITVAL_08 = 320'h0;
  parameter [319:0] INITVAL_09 = 320'h0;
  parameter [319:0] INITVAL_0A = 320'h0;
  parameter [319:0] INITVAL_0B = 320'h0;
  parameter [319:0] INITVAL_0C = 320'h0;
  parameter [319:0] INITVAL_0D = 320'h0;
  parameter [319:0] INITVAL_0E = 320'h0;
  parameter [319:0] INITVAL_0F = 320'h0;
  parameter [319:0] INITVAL_10 = 320'h0;
  parameter [319:0] INITVAL_11 = 320'h0;
  parameter [319:0] INITVAL_12 = 320'h0;
  parameter [319:0] INITVAL_13 = 320'h0;
  parameter [319:0] INITVAL_14 = 320'h0;
  parameter [319:0] INITVAL_15 = 320'h0;
  parameter [319:0] INITVAL_16 = 320'h0;
  parameter [319:0] INITVAL_17 = 320'h0;
  parameter [319:0] INITVAL_18 = 320'h0;
  parameter [319:0] INITVAL_19 = 320'h0;
  parameter [319:0] INITVAL_1A = 320'h0;
  parameter [319:0] INITVAL_1B = 320'h0;
  parameter [319:0] INITVAL_1C = 320'h0;
  parameter [319:0] INITVAL_1D = 320'h0;
  parameter [319:0] INITVAL_1E = 320'h0;
  parameter [319:0] INITVAL_1F = 320'h0;
  parameter [319:0] INITVAL_20 = 320'h0;
  parameter [319:0] INITVAL_21 = 320'h0;
  parameter [319:0] INITVAL_22 = 320'h0;
  parameter [319:0] INITVAL_23 = 320'h0;
  parameter [319:0] INITVAL_24 = 320'h0;
  parameter [319:0] INITVAL_25 = 320'h0;
  parameter [319:0] INITVAL_26 = 320'h0;
  parameter [319:0] INITVAL_27 = 320'h0;
  parameter [319:0] INITVAL_28 = 320'h0;
  parameter [319:0] INITVAL_29 = 320'h0;
  parameter [319:0] INITVAL_2A = 320'h0;
  parameter [319:0] INITVAL_2B = 320'h0;
  parameter [319:0] INITVAL_2C = 320'h0;
  parameter [319:0] INITVAL_2D = 320'h0;
  parameter [319:0] INITVAL_2E = 320'h0;
  parameter [319:0] INITVAL_2F = 320'h0;
  parameter [319:0] INITVAL_30 = 320'h0;
  parameter [319:0] INITVAL_31 = 320'h0;
  parameter [319:0] INITVAL_32 = 320'h0;
  parameter [319:0] INITVAL_33 = 320'h0;
  parameter [319:0] INITVAL_34 = 320'h0;
  parameter [319:0] INITVAL_35 = 320'h0;
  parameter [319:0] INITVAL_36 = 320'h0;
  parameter [319:0] INITVAL_37 = 320'h0;
  parameter [319:0] INITVAL_38 = 320'h0;
  parameter [319:0] INITVAL_39 = 320'h0;
  parameter [319:0] INITVAL_3A = 320'h0;
  parameter [319:0] INITVAL_3B = 320'h0;
  parameter [319:0] INITVAL_3C = 320'h0;
  parameter [319:0] INITVAL_3D = 320'h0;
  parameter [319:0] INITVAL_3E = 320'h0;
  parameter [319:0] INITVAL_3F = 320'h0;
  reg [17:0] words [0:1023];
  reg [320 * 64 - 1:0] bits;
  integer k;
  initial begin
    bits = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
    for (k = 0; k < 1024; k = k + 1) words[k] = bits[20 * k +: 18];
  end

  wire [13:0] addr_A = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire on_A = CEA & ({CSA2, CSA1, CSA0} == 3'b000);

  wire [13:0] addr_B = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire on_B = CEB & ({CSB2, CSB1, CSB0} == 3'b000);
  wire [35:0] in_A = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
  wire [35:0] in_B = {18'b0, DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};

  // The pair of words that an access lies in, with what it writes put in.
  function [35:0] put(input [35:0] old, input [35:0] value, input [13:0] addr, input integer width);
    begin
      put = old;
      case (width)
        1: put[9 * addr[4:3] + addr[2:0] +: 1] = value[0];
        2: put[9 * addr[4:3] + 2 * addr[2:1] +: 2] = value[1:0];
        4: put[9 * addr[4:3] + 4 * addr[2] +: 4] = value[3:0];
        9: put[9 * addr[4:3] +: 9] = value[8:0];
        18: begin
          if (addr[0]) put[18 * addr[4] +: 9] = value[8:0];
          if (addr[1]) put[18 * addr[4] + 9 +: 9] = value[17:9];
        end
        default: begin
          if (addr[0]) put[8:0] = value[8:0];
          if (addr[1]) put[17:9] = value[17:9];
          if (addr[2]) put[26:18] = value[26:18];
          if (addr[3]) put[35:27] = value[35:27];
        end
      endcase
    end
  endfunction

  function [35:0] get(input [35:0] pair, input [13:0] addr, input integer width);
    case (width)
      1: get = pair[9 * addr[4:3] + addr[2:0] +: 1];
      2: get = pair[9 * addr[4:3] + 2 * addr[2:1] +: 2];
      4: get = pair[9 * addr[4:3] + 4 * addr[2] +: 4];
      9: get = pair[9 * addr[4:3] +: 9];
      18: get = pair[18 * addr[4] +: 18];
      default: get = pair;
    endcase
  endfunction

  reg [35:0] out_A;
  wire [8:0] at_A = addr_A[13:5];
  wire [35:0] pair_A = {words[{at_A, 1'b1}], words[{at_A, 1'b0}]};
  wire [35:0] new_A = put(pair_A, in_A, addr_A, DATA_WIDTH_A);
  wire clash_A = on_B & WEB & |(get(36'hfffffffff, addr_A, DATA_WIDTH_A) & get(new_B ^ pair_B, addr_A, DATA_WIDTH_A)) & at_A == at_B;
  initial out_A = 36'b0;
  wire clear_A = RESETMODE == "ASYNC" & RSTA;
  always @(posedge CLKA or posedge clear_A)
    if (clear_A | RSTA) out_A <= 36'b0;
    else if (on_A & !WEA) out_A <= clash_A ? ~get(pair_A, addr_A, DATA_WIDTH_A) : get(pair_A, addr_A, DATA_WIDTH_A);
    else if (on_A & WRITEMODE_A == "WRITETHROUGH") out_A <= get(new_A, addr_A, DATA_WIDTH_A);
    else if (on_A & WRITEMODE_A == "READBEFOREWRITE") out_A <= get(pair_A, addr_A, DATA_WIDTH_A);
  always @(posedge CLKA)
    if (on_A & WEA) begin
      words[{at_A, 1'b0}] <= on_B & WEB & at_A == at_B ? ~pair_A[17:0] : new_A[17:0];
      words[{at_A, 1'b1}] <= on_B & WEB & at_A == at_B ? ~pair_A[35:18] : new_A[35:18];
    end
  reg [35:0] out_B;
  wire [8:0] at_B = addr_B[13:5];
  wire [35:0] pair_B = {words[{at_B, 1'b1}], words[{at_B, 1'b0}]};
  wire [35:0] new_B = put(pair_B, in_B, addr_B, DATA_WIDTH_B);
  wire clash_B = on_A & WEA & |(get(36'hfffffffff, addr_B, DATA_WIDTH_B) & get(new_A ^ pair_A, addr_B, DATA_WIDTH_B)) & at_A == at_B;
  initial out_B = 36'b0;
  wire clear_B = RESETMODE == "ASYNC" & RSTB;
  always @(posedge CLKB or posedge clear_B)
    if (clear_B | RSTB) out_B <= 36'b0;
    else if (on_B & !WEB) out_B <= clash_B ? ~get(pair_B, addr_B, DATA_WIDTH_B) : get(pair_B, addr_B, DATA_WIDTH_B);
    else if (on_B & WRITEMODE_B == "WRITETHROUGH") out_B <= get(new_B, addr_B, DATA_WIDTH_B);
    else if (on_B & WRITEMODE_B == "READBEFOREWRITE") out_B <= get(pair_B, addr_B, DATA_WIDTH_B);
  always @(posedge CLKB)
    if (on_B & WEB) begin
      words[{at_B, 1'b0}] <= on_A & WEA & at_A == at_B ? ~pair_B[17:0] : new_B[17:0];
      words[{at_B, 1'b1}] <= on_A & WEA & at_A == at_B ? ~pair_B[35:18] : new_B[35:18];
    end

  // A port of 36 bits takes the outputs of both; it is read at B, and written at A.
  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = DATA_WIDTH_B == 36 ? out_B[17:0] : out_A[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = DATA_WIDTH_B == 36 ? out_B[35:18] : out_B[17:0];
  generate
    if (DATA_WIDTH_A != 1 && DATA_WIDTH_A != 2 && DATA_WIDTH_A != 4 && DATA_WIDTH_A != 9 && DATA_WIDTH_A != 18 && DATA_WIDTH_A != 36)
      DP16KD_of_other_width not_modelled_width_A();
    if (REGMODE_A != "NOREG") DP16KD_without_output_register not_modelled_register_A();
    if (CSDECODE_A != "0b000") DP16KD_selected_by_zeros_only not_modelled_select_A();
    if (CLKAMUX != "CLKA") DP16KD_without_clock_inversion not_modelled_clock_A();
    if (WRITEMODE_A != "NORMAL" && WRITEMODE_A != "WRITETHROUGH" && WRITEMODE_A != "READBEFOREWRITE")
      DP16KD_of_other_write_mode not_modelled_write_A();
    if (DATA_WIDTH_B != 1 && DATA_WIDTH_B != 2 && DATA_WIDTH_B != 4 && DATA_WIDTH_B != 9 && DATA_WIDTH_B != 18 && DATA_WIDTH_B != 36)
      DP16KD_of_other_width not_modelled_width_B();
    if (REGMODE_B != "NOREG") DP16KD_without_output_register not_modelled_register_B();
    if (CSDECODE_B != "0b000") DP16KD_selected_by_zeros_only not_modelled_select_B();
    if (CLKBMUX != "CLKB") DP16KD_without_clock_inversion not_modelled_clock_B();
    if (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "WRITETHROUGH" && WRITEMODE_B != "READBEFOREWRITE")
      DP16KD_of_other_write_mode not_modelled_write_B();
    if (RESETMODE != "SYNC" && RESETMODE != "ASYNC") DP16KD_of_other_reset not_modelled_reset();
  endgenerate
endmodule
