/* matmul_rows.cu - how the 1..16 input rows of a decode matmul lie: "x records", written by matmul_input.cu.
 *
 * A record holds 8 rows (tokens) x 256 columns; an input of K columns is [ceil(K / 256)][NT] records, NT = 1 for up
 * to 8 rows, 2 for 9..16. Columns from K on are zero; rows from the live count on are never written nor read.
 *
 *   byte 0     f16 [block of 32][token][32]. In memory order every element of pairs 1 and 3 of each 8 (elements 2, 3,
 *              6, 7) is divided by 16: a 4-bit code that stands four bits higher in its word is thus multiplied
 *              without being shifted (matmul_tiles.cu).
 *   byte 4096  sums of each block's 32 elements for the types with minima, each as f16 high + f16 low part:
 *              [token][t = 0..3]{high 2t, high 2t + 1, low 2t, low 2t + 1}
 *   byte 4352  f32 [token]: what a product of the record is multiplied by
 *
 * Elements are scaled by a power of two for each (token, record) that brings the largest to 512..1024: exact, keeps
 * every element in the range of f16 whatever the model does, and 32 of them sum to less than 2^15. It depends
 * only on the token's own row.
 */
#ifndef LAP_MATMUL_ROWS
#define LAP_MATMUL_ROWS

#define X_RECORD 4384
#define X_SUMS 4096
#define X_SCALES 4352

#endif
