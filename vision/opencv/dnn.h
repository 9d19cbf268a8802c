//go:build cgo && opencv

#ifndef ROLLCALL_DNN_H
#define ROLLCALL_DNN_H

#ifdef __cplusplus
extern "C" {
#endif

// Every call returns NULL, or the text of what went wrong; the caller frees
// it. No C++ exception leaves these functions.

// dnn_threads sets how many threads OpenCV uses in this process.
char *dnn_threads(int n);

// dnn_load reads an ONNX net from a path; outputs are the names of the
// outputs that a forward call gives, in this order. The caller closes *net.
char *dnn_load(const char *path, const char **outputs, int count, void **net);
void dnn_close(void *net);

typedef struct {
	const float *data; // count values; the net's, until the next forward call
	int count;
	int width; // size of the last dimension
} dnn_output;

enum { DNN_BGR, DNN_RGB, DNN_GREY };

// How a picture becomes the net's input: channel c of the order becomes
// (x-mean[c])*scale[c].
typedef struct {
	int order;
	double mean[3], scale[3];
} dnn_feed;

// dnn_forward feeds one 8-bit BGR picture, a cv::Mat of the net's input size,
// and gives the outputs: as many as dnn_load was told.
char *dnn_forward(void *net, void *picture, const dnn_feed *feed, dnn_output *outputs);

// dnn_heap gives the bytes that the C heap has handed out and not taken back.
long long dnn_heap(void);

#ifdef __cplusplus
}
#endif

#endif
